/**
 * Several collectors and a web app over one InfluxDB, each the built program, and what they should say of the lines
 * that they got.
 */
import { hasLatency } from '../shared/status.js';
import type { Influxd } from './influxd-server.js';
import { freePorts } from './ports.js';
import { readLedger, startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { until } from './until.js';

/** Collectors with names and spools of their own over one bucket. */
export interface Fleet {
  /** Where each takes lines. */
  readonly ports: readonly number[];
  readonly pids: readonly number[];
  readonly webUrl: string;
  /** Resolves when InfluxDB has taken this number of lines. */
  stored(lines: number): Promise<void>;
  /** Stops all; resolves to their exit statuses. */
  stop(): Promise<(number | NodeJS.Signals)[]>;
}

/** Starts `size` collectors and a web app over a bucket. */
export async function startFleet({ url, org, token }: Influxd, bucket: string, size: number): Promise<Fleet> {
  const ports = await freePorts(2 * size + 1);
  const [web] = ports;
  const store = async () => ({
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: org,
    INFLUXDB_BUCKET: bucket,
    INFLUXDB_TOKEN: token,
    SPOOL_DIR: await temporaryFolder(),
  });
  const takes = ports.slice(1, size + 1);
  const answers = ports.slice(size + 1);
  const programs: RunningProgram[] = await Promise.all([
    ...takes.map(
      async (port, at) =>
        await startProgram(
          ['collector'],
          {
            ...(await store()),
            COLLECTOR_ID: `edge-${at + 1}`,
            COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
            COLLECTOR_HTTP: `127.0.0.1:${answers[at]!}`,
          },
          [`http://127.0.0.1:${answers[at]!}/health`],
        ),
    ),
    startProgram(['web'], { ...(await store()), WEB_LISTEN: `127.0.0.1:${web!}` }, [`http://127.0.0.1:${web!}/health`]),
  ]);
  return {
    ports: takes,
    pids: programs.slice(0, size).map(({ pid }) => pid),
    webUrl: `http://127.0.0.1:${web!}`,
    async stored(lines) {
      await until(
        'InfluxDB has taken all lines',
        async () => {
          const ledgers = await Promise.all(answers.map(readLedger));
          return ledgers.reduce((sum, { stored }) => sum + stored, 0) === lines;
        },
        { waitMsMax: 120_000, pollMs: 50 },
      );
    },
    stop: () => Promise.all(programs.map((program) => program.stop())),
  };
}

/** What `/api/summary` says of a source, in part. */
export interface SummarySource {
  readonly requests: number;
  readonly bytes: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly duration_ms: { readonly p50: number; readonly p95: number; readonly p99: number; readonly max: number };
}

/**
 * The same of lines of the sample, exactly: read with a pattern and not with the product's decoder, and percentiles by
 * the nearest rank.
 */
export function exactSummary(lines: Iterable<string>): SummarySource {
  const statuses: Record<string, number> = {};
  const durationsMs: number[] = [];
  let requests = 0;
  let bytes = 0;
  for (const line of lines) {
    const [, seconds, size, status] = /"duration":([\d.e-]+),"size":(\d+),"status":(\d+)/.exec(line)!;
    requests += 1;
    bytes += Number(size);
    statuses[status!] = (statuses[status!] ?? 0) + 1;
    if (hasLatency({ status: Number(status), method: /"method":"(\w+)"/.exec(line)?.[1] ?? '' }))
      durationsMs.push(Number(seconds) * 1000);
  }
  durationsMs.sort((a, b) => a - b);
  const atShare = (share: number): number => durationsMs[Math.ceil(share * durationsMs.length) - 1]!;
  return {
    requests,
    bytes,
    statuses,
    duration_ms: { p50: atShare(0.5), p95: atShare(0.95), p99: atShare(0.99), max: atShare(1) },
  };
}

/** What the web app says of Caddy's requests. */
export async function readSummary(webUrl: string, range: string): Promise<SummarySource> {
  const { sources } = (await (await fetch(`${webUrl}/api/summary?${range}`)).json()) as {
    sources: { caddy: SummarySource };
  };
  return sources.caddy;
}
