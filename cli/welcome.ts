import { entryLines, eventLoggers } from '../collector/caddy/event-log.js';
import { caddyAddress, type ListenAddress } from '../collector/listen/address.js';
import { version } from './version.js';

/** Contents of the welcome text. */
export interface Welcome {
  /** The dashboard's URL. */
  readonly dashboard?: string;
  readonly addresses?: readonly ListenAddress[];
  /** The URL of the collector's status server. */
  readonly ledger?: string | undefined;
  readonly store: string;
  /** The admin API of the Caddy with which the sink registers. */
  readonly registersAt?: string | undefined;
  /** The lines to paste into a Caddyfile. */
  readonly hint?: readonly string[];
}

/** The text that a started program prints: its addresses, and how to connect Caddy. */
export function welcome({ dashboard, addresses, ledger, store, registersAt, hint }: Welcome): string {
  return [
    '',
    `Caddy Log Sink ${version()}`,
    ...(dashboard === undefined ? [] : [`  Dashboard  ${dashboard}`]),
    ...(addresses === undefined ? [] : [`  Collector  ${addresses.map(caddyAddress).join('  ')}`]),
    ...(ledger === undefined ? [] : [`  Ledger     ${ledger.replace(/\/$/, '')}/ledger`]),
    `  Store      ${store}`,
    '',
    ...nextSteps({ registersAt, hint }),
    '',
  ].join('\n');
}

function nextSteps({
  registersAt,
  hint,
}: Pick<Welcome, 'registersAt'> & { readonly hint: readonly string[] | undefined }): readonly string[] {
  if (registersAt !== undefined) {
    return [
      `The sink registers with the Caddy at ${registersAt}: do not add it to the Caddyfile. Each site`,
      'needs `log`, or Caddy writes no access log for it; a warning lists sites without one.',
      '',
    ];
  }
  return hint === undefined
    ? []
    : ['Put these lines into your Caddyfile and reload Caddy:', '', ...hint.map((line) => `    ${line}`), ''];
}

/** The lines for a Caddyfile, for the first stream listener: the log of each site, and the one of Caddy's events. */
export function caddyfileLines(addresses: readonly ListenAddress[]): readonly string[] {
  const address = caddyAddress(addresses.find(({ kind }) => kind !== 'udp') ?? addresses[0]!);
  const { events } = eventLoggers({ address, handlesErrors: false });
  return [
    '# into each site',
    'log {',
    `    output net ${address} {`,
    '        dial_timeout 1s',
    '        soft_start',
    '    }',
    '}',
    '',
    '# once, at the top of the Caddyfile: says why requests fail',
    '# (if the file begins with a { } block, put the log into that)',
    '{',
    ...entryLines('caddy_events', events).map((line) => `    ${line}`),
    '}',
  ];
}
