import { UsageError } from '../../errors.js';

/**
 * Parses the address of InfluxDB and removes a trailing slash. Throws a `UsageError` if it is invalid or has a
 * password.
 */
export function readUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UsageError(
      `INFLUXDB_URL ${JSON.stringify(text)} is not a valid address: it must look like http://127.0.0.1:8086.`,
    );
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new UsageError(
      'INFLUXDB_URL has a user, a password, a query or a fragment: remove them, and put the token in INFLUXDB_TOKEN.',
    );
  }
  return url.href.replace(/\/+$/, '');
}
