import { UsageError } from '../shared/errors.js';
import { address, flag, formatAddress, isLoopback, text, type SettingValues } from '../shared/settings.js';

/** The settings of the web app. */
export const webSettings = {
  WEB_LISTEN: address('Where the dashboard listens.', { default: '127.0.0.1:3000' }),
  DASHBOARD_PASSWORD: text('The password of the dashboard (any user name); needed when it listens beyond this machine.'),
  DASHBOARD_OPEN: flag('Whether the dashboard may listen beyond this machine without a password, because something in front guards it.'),
};

/** What the web app is started with. */
export interface WebConfig {
  /** Empty for every address. */
  readonly host: string;
  readonly port: number;
  readonly password: string | undefined;
  /** The Caddyfile lines that an empty page tells people to paste. */
  readonly connectHint: readonly string[];
}

/** Makes the web app's configuration. Throws a `UsageError` when the page would be open to strangers unasked. */
export function webConfigFrom(values: SettingValues<typeof webSettings>, connectHint: readonly string[]): WebConfig {
  const { host, port } = values.WEB_LISTEN;
  if (!isLoopback(host) && values.DASHBOARD_PASSWORD === undefined && !values.DASHBOARD_OPEN) {
    throw new UsageError(
      `WEB_LISTEN is ${JSON.stringify(formatAddress(values.WEB_LISTEN))}, which others can reach: set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true when a proxy in front guards it, or listen on 127.0.0.1.`,
    );
  }
  return { host, port, password: values.DASHBOARD_PASSWORD, connectHint };
}
