import { HttpError } from '@influxdata/influxdb-client';

/**
 * Calls InfluxDB's JSON API; resolves to the response, `{}` if it is empty. Throws the client's `HttpError` for an
 * error response, and the system's error if there was no response.
 */
export async function callApi(
  { url, token }: { url: string; token: string },
  method: string,
  path: string,
  { body, signal }: { body?: object | undefined; signal: AbortSignal },
): Promise<Readonly<Record<string, unknown>>> {
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...(token !== '' && { authorization: `Token ${token}` }) },
    signal,
    ...(body && { body: JSON.stringify(body) }),
  }).catch((error: unknown) => {
    throw (error as Error).cause ?? error;
  });
  const text = await answer.text();
  if (!answer.ok) throw new HttpError(answer.status, answer.statusText, text, null, answer.headers.get('content-type'));
  return (text === '' ? {} : JSON.parse(text)) as Readonly<Record<string, unknown>>;
}
