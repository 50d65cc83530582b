import { formatAddress } from '../../../shared/settings/settings.js';
import { UsageError } from '../../../shared/errors.js';
import { printable } from '../../../shared/printable.js';
import { caddyAddress, type ListenAddress } from '../../listen/address.js';
import { netAddress, netLoggers, type NetAddress, type NetLogger } from './log-routing.js';
import { findProblems, type Finding } from './find-problems.js';
import { readCaddyConfig } from './read-config.js';

/** What `check` is asked to do. */
export interface CheckRequest {
  /** A Caddyfile, a file of JSON, or the address of an admin API. */
  readonly source: string;
  /** The sink's address as Caddy has it; `undefined` for every `output net`, or for those of `listen`. */
  readonly address: string | undefined;
  /**
   * Where the collector listens, when that is set: loggers that write to one of its ports or sockets write to the sink.
   */
  readonly listen: readonly ListenAddress[] | undefined;
  /** Where the dashboard listens. */
  readonly dashboard: { readonly host: string; readonly port: number };
  /** Whether to print JSON. */
  readonly json: boolean;
}

/** What `check` found. */
export interface CheckResult {
  /** For standard output, with its last line break. */
  readonly text: string;
  /** 1 when something would be lost, else 0. */
  readonly exitStatus: 0 | 1;
}

/** Checks a configuration of Caddy. Throws a `UsageError` when it cannot be read. */
export async function check(request: CheckRequest): Promise<CheckResult> {
  const { sinkAt, described } = sinkOf(request);
  const { config, syntax } = await readCaddyConfig(request.source).catch((error: unknown) => {
    throw error instanceof UsageError ? new UsageError(printable(error.message), { cause: error }) : error;
  });
  const loggers = netLoggers(config).filter(({ address }) => sinkAt(address) !== undefined);
  const address = addressToWrite(request, loggers);
  const findings = findProblems(config, { sinkAt, syntax, address, dashboard: formatAddress(request.dashboard) });
  const loses = findings.some(({ severity }) => severity === 'loses');
  const report = {
    source: request.source,
    sink: described,
    loggers: loggers.map(({ name, address }) => ({ name, address: address.text })),
    loses,
    findings,
  };
  return {
    text: request.json ? `${JSON.stringify(report, null, 2)}\n` : printable(forPeople(report)),
    exitStatus: loses ? 1 : 0,
  };
}

function sinkOf({ address, listen }: CheckRequest): {
  sinkAt: (address: NetAddress) => string | undefined;
  described: string;
} {
  if (address !== undefined) {
    const { place, port } = netAddress(address);
    if (port === '' && !place.startsWith('unix/'))
      throw new UsageError(
        `--address is ${JSON.stringify(address)}: it must be an address as Caddy has it, such as tcp/127.0.0.1:9514 or unix//run/sink.sock.`,
      );
    return {
      sinkAt: (other) => (other.place === place ? 'sink' : undefined),
      described: `the loggers that write to ${address}, by --address`,
    };
  }
  if (listen !== undefined) {
    const places = new Set(listen.map((each) => (each.kind === 'unix' ? `unix/${each.path}` : String(each.port))));
    return {
      sinkAt: (other) => (places.has(other.port || other.place) ? 'sink' : undefined),
      described: `the loggers that write to ${[...places].map((place) => (place.startsWith('unix/') ? place : `port ${place}`)).join(' or ')}, by COLLECTOR_LISTEN`,
    };
  }
  return {
    sinkAt: (other) => other.place,
    described: 'every logger with `output net`; --address tcp/HOST:PORT names one sink',
  };
}

/**
 * The sink's address for the lines to write: as it was given, as the loggers have it, as the collector listens, or the
 * default.
 */
function addressToWrite({ address, listen = [] }: CheckRequest, loggers: readonly NetLogger[]): string {
  if (address !== undefined) return address.replace('://', '/');
  const known = loggers.find((logger) => !logger.address.network.startsWith('udp')) ?? loggers[0];
  const listened = listen.find(({ kind }) => kind !== 'udp') ?? listen[0];
  return known?.address.text ?? (listened === undefined ? 'tcp/127.0.0.1:9514' : caddyAddress(listened));
}

interface Report {
  readonly source: string;
  readonly sink: string;
  readonly loggers: readonly { name: string; address: string }[];
  readonly loses: boolean;
  readonly findings: readonly Finding[];
}

function forPeople({ source, sink, loggers, loses, findings }: Report): string {
  const count =
    findings.length === 0 ? 'nothing to change' : findings.length === 1 ? '1 finding' : `${findings.length} findings`;
  return [
    `${source}: ${count}.`,
    `Looked at: ${sink}.`,
    `They are: ${loggers.map(({ name, address }) => `${name} (${address})`).join(', ') || 'none'}.`,
    ...findings.flatMap((finding) => ['', ...findingLines(finding)]),
    '',
    loses ? 'Something would be lost.' : 'Nothing would be lost.',
    '',
  ].join('\n');
}

/** How many sites a finding names; the rest is counted. */
const sitesMax = 5;

function findingLines({ severity, what, logger, sites, path, why, change }: Finding): string[] {
  const more = sites.length > sitesMax ? `, and ${sites.length - sitesMax} more` : '';
  const where = [
    logger === undefined ? '' : `log ${logger}`,
    sites.length === 0 ? '' : `${sites.slice(0, sitesMax).join(', ')}${more}`,
  ].filter(Boolean);
  return [
    `${severity.padEnd(8)}${what}`,
    `        in ${[...where, path].join('; ')}`,
    `        ${why}`,
    ...change.map((line, index) => `${index === 0 ? 'change  ' : '        '}${line}`),
  ];
}
