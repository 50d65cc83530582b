import type { ClientIpPolicy } from '../shared/record/bounds.js';
import { UsageError } from '../shared/errors.js';
import {
  address,
  flag,
  formatAddress,
  isLoopback,
  text,
  url,
  type Setting,
  type SettingValues,
} from '../shared/settings/settings.js';

/** The settings of the web app. */
export const webSettings = {
  WEB_LISTEN: address('Where the dashboard listens.', { default: '127.0.0.1:3000' }),
  DASHBOARD_PASSWORD: text(
    'The password of the dashboard (any user name); needed when it listens beyond this machine.',
  ),
  DASHBOARD_OPEN: flag(
    'Whether the dashboard may, without a password, listen beyond this machine and answer to any name, because something in front guards it.',
  ),
  DASHBOARD_URL: url(
    "The dashboard's address as people reach it, for links in alerts and the log; where it listens when it is not set.",
  ),
  ALERT_WEBHOOK: webhook(
    'Where alerts are posted as JSON when a source fails, gets slow or falls silent: an http or https URL.',
  ),
};

/** What the web app is started with. */
export interface WebConfig {
  /** Empty for every address. */
  readonly host: string;
  readonly port: number;
  readonly password: string | undefined;
  /**
   * Whether only requests under names of this machine are answered, because nothing else guards the page. Default:
   * false.
   */
  readonly loopbackNamesOnly?: boolean;
  /** How client addresses are stored. Default: `full`. */
  readonly clientIp?: ClientIpPolicy | undefined;
  /** The Caddyfile lines that an empty page tells people to paste. */
  readonly connectHint: readonly string[];
  /** Where alerts go; without it none are sent. */
  readonly alertWebhook?: URL | undefined;
  /** The dashboard's address in alerts; where it listens by default. */
  readonly publicUrl?: string | undefined;
}

/** Makes the web app's configuration. Throws a `UsageError` when the page would be open to strangers unasked. */
export function webConfigFrom(
  values: SettingValues<typeof webSettings> & { readonly CLIENT_IP?: ClientIpPolicy },
  connectHint: readonly string[],
): WebConfig {
  const { host, port } = values.WEB_LISTEN;
  const unguarded = values.DASHBOARD_PASSWORD === undefined && !values.DASHBOARD_OPEN;
  if (!isLoopback(host) && unguarded) {
    throw new UsageError(
      `WEB_LISTEN is ${JSON.stringify(formatAddress(values.WEB_LISTEN))}, which others can reach: set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true when a proxy in front guards it, or listen on 127.0.0.1.`,
    );
  }
  return {
    host,
    port,
    password: values.DASHBOARD_PASSWORD,
    loopbackNamesOnly: unguarded,
    clientIp: values.CLIENT_IP,
    connectHint,
    alertWebhook: values.ALERT_WEBHOOK,
    publicUrl: values.DASHBOARD_URL,
  };
}

/** A URL whose path or user may be a secret: whoever knows it can post there. */
function webhook(help: string): Setting<URL | undefined> {
  const { parse, ...setting } = url(help);
  return {
    ...setting,
    allowed: 'an http or https URL, such as https://hooks.example.com/services/T000',
    secret: true,
    parse: (value) => {
      parse(value);
      const { username, password } = new URL(value);
      decodeURIComponent(username + password); // throws where they cannot be decoded
      return new URL(value); // with the slash at its end, if it has one
    },
  };
}
