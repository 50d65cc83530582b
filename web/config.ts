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
  WEB_LISTEN: address('Address of the dashboard.', { default: '127.0.0.1:3000' }),
  DASHBOARD_PASSWORD: text(
    'Password of the dashboard, with any user name. Required unless it listens on a loopback address.',
  ),
  DASHBOARD_OPEN: flag(
    'Allows the dashboard to listen on any address and respond to any host name without a password, because a proxy restricts access.',
  ),
  DASHBOARD_URL: url(
    'Public URL of the dashboard, for links in alerts and the log. Default: the address it listens on.',
  ),
  ALERT_WEBHOOK: webhook('URL to post alerts to as JSON, when a source fails, becomes slow or sends no requests.'),
};

/** The configuration of the web app. */
export interface WebConfig {
  /** `''` for all addresses. */
  readonly host: string;
  readonly port: number;
  readonly password: string | undefined;
  /** Whether to respond only to loopback host names, because nothing else restricts access. Default: false. */
  readonly loopbackNamesOnly?: boolean;
  /** How client addresses are stored. Default: `full`. */
  readonly clientIp?: ClientIpPolicy | undefined;
  /** The Caddyfile lines that an empty page shows. */
  readonly connectHint: readonly string[];
  /** URL to post alerts to. Default: no alerts. */
  readonly alertWebhook?: URL | undefined;
  /** Public URL of the dashboard, for alerts. Default: the address it listens on. */
  readonly publicUrl?: string | undefined;
}

/** Creates the configuration. Throws a `UsageError` if the page would be public without `DASHBOARD_OPEN`. */
export function webConfigFrom(
  values: SettingValues<typeof webSettings> & { readonly CLIENT_IP?: ClientIpPolicy },
  connectHint: readonly string[],
): WebConfig {
  const { host, port } = values.WEB_LISTEN;
  const unguarded = values.DASHBOARD_PASSWORD === undefined && !values.DASHBOARD_OPEN;
  if (!isLoopback(host) && unguarded) {
    throw new UsageError(
      `WEB_LISTEN is ${JSON.stringify(formatAddress(values.WEB_LISTEN))}, which others can reach: set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true if a proxy restricts access, or listen on 127.0.0.1.`,
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

/** A URL that may contain a secret in its path or credentials. */
function webhook(help: string): Setting<URL | undefined> {
  const { parse, ...setting } = url(help);
  return {
    ...setting,
    allowed: 'an http or https URL, such as https://hooks.example.com/services/T000',
    secret: true,
    parse: (value) => {
      parse(value);
      const { username, password } = new URL(value);
      decodeURIComponent(username + password); // throws if they cannot be decoded
      return new URL(value); // keeps a trailing slash, unlike `url`
    },
  };
}
