import { formatAddress } from '../../../shared/settings/settings.js';
import { UsageError } from '../../../shared/errors.js';
import { printable } from '../../../shared/printable.js';
import { caddyAddress, type ListenAddress } from '../../listen/address.js';
import { netAddress, netLoggers, type NetAddress, type NetLogger } from './log-routing.js';
import { findProblems } from './find-problems.js';
import type { Finding } from './finding.js';
import { readCaddyConfig } from './read-config.js';

/** Options of `check`. */
export interface CheckRequest {
  /** A Caddyfile, a JSON file, or the address of an admin API. */
  readonly source: string;
  /** The sink's address in Caddy's syntax. If `undefined`, `listen` decides. */
  readonly address: string | undefined;
  /** The collector's listen addresses, if configured. If `undefined`, every `output net` counts as a sink. */
  readonly listen: readonly ListenAddress[] | undefined;
  /** The dashboard's listen address. */
  readonly dashboard: { readonly host: string; readonly port: number };
  /** Whether to print JSON. */
  readonly json: boolean;
}

/** Result of `check`. */
export interface CheckResult {
  /** The report for standard output, with a final line break. */
  readonly text: string;
  /** 1 if log lines would be lost, otherwise 0. */
  readonly exitStatus: 0 | 1;
}

/** Checks a configuration of Caddy. Throws a `UsageError` if it cannot be read. */
export async function check(request: CheckRequest): Promise<CheckResult> {
  const { sinkAt, description } = sinkOf(request);
  const { config, syntax } = await readCaddyConfig(request.source).catch((error: unknown) => {
    throw error instanceof UsageError ? new UsageError(printable(error.message), { cause: error }) : error;
  });
  const loggers = netLoggers(config).filter(({ address }) => sinkAt(address) !== undefined);
  const address = addressToWrite(request, loggers);
  const findings = findProblems(config, { sinkAt, syntax, address, dashboard: formatAddress(request.dashboard) });
  const loses = findings.some(({ severity }) => severity === 'loses');
  const report = {
    source: request.source,
    sink: description,
    loggers: loggers.map(({ name, address }) => ({ name, address: address.text })),
    loses,
    findings,
  };
  return {
    text: request.json ? `${JSON.stringify(report, null, 2)}\n` : printable(textReport(report)),
    exitStatus: loses ? 1 : 0,
  };
}

function sinkOf({ address, listen }: CheckRequest): {
  sinkAt: (address: NetAddress) => string | undefined;
  description: string;
} {
  if (address !== undefined) {
    const { place, port } = netAddress(address);
    if (port === '' && !place.startsWith('unix/'))
      throw new UsageError(
        `--address is ${JSON.stringify(address)}: it must be an address in Caddy's syntax, such as tcp/127.0.0.1:9514 or unix//run/sink.sock.`,
      );
    return {
      sinkAt: (other) => (other.place === place ? 'sink' : undefined),
      description: `loggers that write to ${address} (--address)`,
    };
  }
  if (listen !== undefined) {
    const places = new Set(listen.map((each) => (each.kind === 'unix' ? `unix/${each.path}` : String(each.port))));
    return {
      sinkAt: (other) => (places.has(other.port || other.place) ? 'sink' : undefined),
      description: `loggers that write to ${[...places].map((place) => (place.startsWith('unix/') ? place : `port ${place}`)).join(' or ')} (COLLECTOR_LISTEN)`,
    };
  }
  return {
    sinkAt: (other) => other.place,
    description: 'every logger with `output net`; --address tcp/HOST:PORT selects one sink',
  };
}

/**
 * The sink's address for suggested changes: from `--address`, from a logger, from `COLLECTOR_LISTEN`, or the default.
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

function textReport({ source, sink, loggers, loses, findings }: Report): string {
  const count =
    findings.length === 0 ? 'nothing to change' : findings.length === 1 ? '1 finding' : `${findings.length} findings`;
  return [
    `${source}: ${count}.`,
    `Checked: ${sink}.`,
    `Loggers: ${loggers.map(({ name, address }) => `${name} (${address})`).join(', ') || 'none'}.`,
    ...findings.flatMap((finding) => ['', ...findingLines(finding)]),
    '',
    loses ? 'Log lines would be lost.' : 'No log lines would be lost.',
    '',
  ].join('\n');
}

/** Maximum number of sites named in a finding. */
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
