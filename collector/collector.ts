import { rateLimitedWarn, type Log } from '../shared/log.js';
import { createRecorder, memoryBytesMaxDefault, type Recorder } from '../shared/record/recorder.js';
import type { RequestEvent } from '../shared/request-event.js';
import type { ClientIpPolicy } from '../shared/record/bounds.js';
import type { ConfiguredHosts } from '../shared/record/configured-hosts.js';
import type { CountryOf } from '../shared/record/countries.js';
import { isPlausibleTime } from '../shared/store/retention.js';
import type { UsedTimes } from '../shared/record/unique-time.js';
import type { Ledger, LedgerWarning, Store } from '../shared/store/store.js';
import { createDecoder, type Decoded } from './decode/decode.js';
import { beginningOf, redact } from './decode/redact.js';
import type { CollectorConfig } from './config.js';
import { startStatusServer } from './status-server.js';
import { LineSources, type LineSource } from './line-sources.js';
import { createLedgerSchedule, createLineAccounts, ledgerOf, type DropReason, type RejectionReason } from './ledger.js';
import { formatListenAddress, type ListenAddress } from './listen/address.js';
import { listen } from './listen/listen.js';
import { allowList, ConnectionLimit, type NoRoom } from './listen/peers.js';
import type { OpenStream } from './listen/sockets.js';
import type { PartialLineMemory } from './lines.js';
import { PartialLines } from './partial-lines.js';
import { formatAddress } from '../shared/settings/settings.js';

/** A running collector. */
export interface Collector {
  /** The listen addresses, with the ports that were bound. */
  readonly addresses: readonly ListenAddress[];
  /** Base URL of the HTTP server; `undefined` if it is off. */
  readonly httpUrl: string | undefined;
  readonly ledger: () => Ledger;
  /** Timestamps of the last requests, for the collector that replaces this one. */
  readonly usedTimes: () => UsedTimes;
  /**
   * Reads what has arrived, stores it, and stops. Resolves to the number of requests that could not be stored. The
   * store stays open.
   */
  stop(): Promise<number>;
}

/** Dependencies and limits of a collector. */
export interface CollectorParts {
  readonly store: Store;
  readonly log: Log;
  readonly hostsMax: number;
  /** Hosts in Caddy's configuration. Default: none. */
  readonly configuredHosts?: ConfiguredHosts | undefined;
  readonly clientIp: ClientIpPolicy;
  readonly countryOf?: CountryOf | undefined;
  /** Share of requests stored as rows, from 0 to 1. Default: 1. */
  readonly sampleRatio?: number | undefined;
  /** Memory limit for requests that are not stored yet, in bytes. Partial lines may use a quarter of it in addition. */
  readonly memoryBytesMax?: number;
  /** Retention of rollups, in milliseconds: older lines are rejected. Default: 400 days. */
  readonly rollupRetentionMs?: number | undefined;
  /** Opens stream sockets. Default: in this process. */
  readonly openStream?: OpenStream | undefined;
  /** Timestamps that the previous collector left. */
  readonly usedTimes?: UsedTimes | undefined;
  readonly now?: () => number;
  /** See `LineSources`. */
  readonly skewHalfWindowMs?: number;
}

type Understood = Exclude<Decoded, { readonly kind: 'rejected' }>;

const refusalReasons: Readonly<Record<'not-allowed' | NoRoom, string>> = {
  'not-allowed': 'its address is not in COLLECTOR_ALLOW. Add it if this peer should send logs',
  'too-many-connections': 'COLLECTOR_CONNECTIONS_MAX is reached. Raise it if all connections are yours',
  'too-many-of-peer':
    'its address uses three quarters of COLLECTOR_CONNECTIONS_MAX. Raise it if all connections are yours',
};

/** Interval between updates of the example of a rejected line, per reason, in milliseconds. */
const exampleIntervalMs = 1000;

const partialLinesFull = 'the memory for partial lines is full';

const rejectionDetails: Partial<Record<RejectionReason, string>> = {
  'unknown-encoder': 'it is a request in an unsupported encoding, such as ECS, GELF or logfmt: use `format json`',
  'bad-status': 'it is a request without a status, which a filter may have removed',
};

/** Interval between reads of the kernel's count of dropped datagrams, in milliseconds. */
const lossWatchMs = 5000;

/** Interval between checks for clock skew, in milliseconds. */
const skewCheckMs = 5000;
/** Minimum interval between warnings about the same skewed clock, in milliseconds. */
const skewWarnMs = 600_000;

/** Starts a collector. Throws a `UsageError` if it cannot listen. */
export async function startCollector(config: CollectorConfig, parts: CollectorParts): Promise<Collector> {
  const { store, log, now = Date.now } = parts;
  const accounts = createLineAccounts();
  const decoder = createDecoder({
    ...config,
    onTimeWithoutZone: () => {
      sources.current.isWithoutZone = true;
    },
  });
  const dueLedger = createLedgerSchedule(config.id);
  const recorder: Recorder = createRecorder({
    ...parts,
    name: config.id,
    ledger: (counts) => dueLedger(ledgerOf(accounts, counts), now()),
  });
  const warn = rateLimitedWarn(log.warn);
  const sources = new LineSources({
    now,
    halfWindowMs: parts.skewHalfWindowMs,
    timeZone: config.timeZone,
    log,
  });
  const warnOfSkew = rateLimitedWarn(log.warn, { intervalMs: skewWarnMs });
  const partialLineMemory: PartialLineMemory = {
    bytes: 0,
    bytesMax: Math.ceil((parts.memoryBytesMax ?? memoryBytesMaxDefault) / 4),
  };
  const lastExampleMs: Partial<Record<RejectionReason, number>> = {};
  let linesUnderstood = 0;
  const connections = new ConnectionLimit(config.connectionsMax);
  const tooLongDetail = `it is longer than COLLECTOR_LINE_BYTES_MAX, ${config.lineBytesMax} bytes`;
  const ledgerLocation =
    config.http === undefined ? 'the ledger (COLLECTOR_HTTP is off)' : `http://${formatAddress(config.http)}/ledger`;

  const listeners = await listen(
    config.listen,
    {
      lineBytesMax: config.lineBytesMax,
      unixMode: config.unixMode,
      connections,
      sources,
      isAllowed: allowList(config.allow),
      onLine,
      onTooLong,
      onMemoryFull,
      partialLineMemory,
      onUnterminated,
      onRefused: (reason, remoteAddress) => {
        countWarning(reason === 'not-allowed' ? 'peers-not-allowed' : 'peers-too-many-connections');
        warn(reason, `Refused a peer: ${refusalReasons[reason]}.`, {
          peer: remoteAddress ?? 'gone',
          connectionsMax: config.connectionsMax,
        });
      },
      onEvicted: (remoteAddress) => {
        countWarning('connections-evicted');
        warn(
          'evicted',
          'COLLECTOR_CONNECTIONS_MAX is reached: closed a connection that has never sent a valid line, to make room for a new one. Raise it if all connections are yours.',
          { peer: remoteAddress ?? 'unix', connectionsMax: config.connectionsMax },
        );
      },
      onDropped: (lines) => {
        accounts.received += lines;
        accounts.dropped['no-worker'] = (accounts.dropped['no-worker'] ?? 0) + lines;
      },
      linesUnderstood: () => linesUnderstood,
      onError: (message) => {
        warn('socket', `A connection failed: ${message}`);
      },
    },
    parts.openStream,
  ).catch(async (error: unknown) => {
    await recorder.close();
    throw error;
  });
  const lostDatagrams = async (): Promise<number | null> => {
    const counts = (await Promise.all(listeners.map((listener) => listener.lost()))).filter(
      (count) => count !== undefined,
    );
    return counts.length === 0 ? null : counts.reduce((sum, count) => sum + count, 0);
  };
  const lossWatch = setInterval(() => {
    void lostDatagrams().then((lost) => {
      const before = accounts.warnings['datagrams-lost'] ?? 0;
      if (lost === null || lost <= before) return;
      warn(
        'datagrams',
        "Log lines were lost: the kernel's UDP receive buffer was full, and it dropped datagrams. Use TCP, or raise net.core.rmem_max.",
        { datagrams: lost - before },
      );
      accounts.warnings['datagrams-lost'] = lost;
    });
  }, lossWatchMs);
  const skewWatch = setInterval(
    () => {
      const { found, largestMs } = sources.checkSkew();
      if (largestMs > 0) accounts.warnings['clock-skew'] = Math.round(largestMs / 1000);
      else delete accounts.warnings['clock-skew'];
      for (const source of found) reportSkew(source);
      for (let left = sources.expirePartialLines(); left > 0; left -= 1) onUnterminated();
    },
    Math.min(skewCheckMs, (parts.skewHalfWindowMs ?? Infinity) / 2),
  );
  const ledger = (): Ledger => ledgerOf(accounts, recorder.counts, store.spool);
  const status =
    config.http === undefined
      ? undefined
      : await startStatusServer(config.http, {
          id: config.id,
          ledger,
          accounts,
          durationFormats: () => decoder.durationFormats(),
          recorder,
          store,
          log,
          connections,
          sources,
          lostDatagrams,
          imports: { ...parts, id: config.id, decoder: config, lineBytesMax: config.lineBytesMax },
        }).catch(async (error: unknown) => {
          clearInterval(lossWatch);
          clearInterval(skewWatch);
          await Promise.all(listeners.map((listener) => listener.stop()));
          await recorder.close();
          throw error;
        });
  const addresses = listeners.map((listener) => listener.address);
  log.info(`Listening on ${addresses.map(formatListenAddress).join(', ')}.`);

  return {
    addresses,
    httpUrl: status?.url,
    ledger,
    usedTimes: () => recorder.usedTimes(),
    async stop() {
      clearInterval(lossWatch);
      clearInterval(skewWatch);
      await Promise.all(listeners.map((listener) => listener.stop()));
      // In parallel: in sequence they could exceed a service manager's stop timeout.
      const [lost] = await Promise.all([recorder.close(), status?.stopImports()]);
      await status?.stop();
      const { received, accepted, stored, spooled } = ledger();
      log.info('Stopped.', { received, accepted, stored, spooled });
      return lost;
    },
  };

  function countWarning(warning: LedgerWarning): void {
    accounts.warnings[warning] = (accounts.warnings[warning] ?? 0) + 1;
  }

  function onLine(bytes: Buffer, from: number, to: number): void {
    const arrivalMs = receive(); // first, since recording may write the ledger
    const decoded = decoder.decodeLine(bytes, from, to, arrivalMs);
    if (decoded.kind === 'rejected') handleRejected(decoded.reason, bytes.toString('utf8', from, to), arrivalMs);
    else count(decoded, arrivalMs);
  }

  /** Rejects a line, unless it is a part of a line that was split into several envelopes. */
  function handleRejected(reason: RejectionReason, line: string, arrivalMs: number): void {
    if (reason === 'bad-status') {
      rejectWithExample(reason, line, arrivalMs);
      return;
    }
    const source = sources.current;
    source.partialLines ??= new PartialLines(config.lineBytesMax, partialLineMemory);
    const part = source.partialLines.add(line, arrivalMs);
    switch (part.kind) {
      case 'not-a-part':
        rejectWithExample(reason, line, arrivalMs);
        break;
      case 'complete': {
        const decoded = decoder.decode(part.line, arrivalMs);
        if (decoded.kind === 'rejected') rejectWithExample(decoded.reason, part.line, arrivalMs);
        else count(decoded, arrivalMs);
        break;
      }
      case 'incomplete':
        accounts.received -= 1; // counted once the line is complete
        break;
      case 'too-long':
        reject('too-long', tooLongDetail);
        break;
      case 'memory-full':
        drop('memory-full', partialLinesFull);
        break;
    }
  }

  /** Counts a line that was understood, and records its request. */
  function count(decoded: Understood, arrivalMs: number): void {
    linesUnderstood += 1;
    if (decoded.kind === 'runtime') {
      accounts.runtime += 1;
      return;
    }
    if (decoded.timeOfArrival) accounts.timeOfArrival += 1;
    recordRequest(decoded.event, arrivalMs, decoded.timeOfArrival ? undefined : sources.current);
  }

  function rejectWithExample(reason: RejectionReason, line: string, arrivalMs: number): void {
    updateExample(reason, line, arrivalMs);
    reject(
      reason,
      `${rejectionDetails[reason] ?? 'it is not a line of Caddy'}; ${ledgerLocation} has the count and an example`,
    );
  }

  /** Updates the redacted example for a reason, at most once per second: redaction is slower than decoding. */
  function updateExample(reason: RejectionReason, line: string, arrivalMs: number): void {
    if (Math.abs(arrivalMs - (lastExampleMs[reason] ?? 0)) < exampleIntervalMs) return;
    lastExampleMs[reason] = arrivalMs;
    accounts.examples[reason] = redact(beginningOf(line));
  }

  /** Records a request. `source` is `undefined` if the request's time is its arrival time. */
  function recordRequest(request: RequestEvent, arrivalMs: number, source: LineSource | undefined): void {
    if (source !== undefined && arrivalMs - request.timeMs < source.lagMsMin)
      source.lagMsMin = arrivalMs - request.timeMs;
    if (!isPlausibleTime(request.timeMs, { nowMs: arrivalMs, rollupRetentionMs: parts.rollupRetentionMs }))
      reject('bad-time', 'its time is more than a day ahead, or older than RETENTION_ROLLUPS');
    else if (!recorder.record(request))
      drop(
        recorder.full,
        recorder.problem ?? 'requests arrive faster than they are stored, and the memory limit is reached',
      );
  }

  function reportSkew(source: LineSource): void {
    const { peer, skewMs = 0 } = source;
    const seconds = Math.round(Math.abs(skewMs) / 1000);
    const zone = sources.zoneHint(source);
    const advice = zone ?? 'Set the clocks of both machines with NTP';
    // One warning for all connections of a machine.
    warnOfSkew(
      peer.replace(/:\d+$/, ''),
      skewMs < 0
        ? `The clock of a Caddy is ${seconds} s ahead of this machine's: its requests are counted at the wrong time. ${advice}.`
        : `The clock of a Caddy is ${seconds} s behind this machine's${zone === undefined ? ', or its lines take that long to arrive' : ''}: its requests are counted at the time in the log line. ${advice}.`,
      { peer },
    );
  }

  function onTooLong(): void {
    onIncomplete('too-long', tooLongDetail);
  }

  function onUnterminated(): void {
    onIncomplete('unterminated', 'the connection ended in the middle of it');
  }

  function onMemoryFull(): void {
    receive();
    drop('memory-full', partialLinesFull);
  }

  function onIncomplete(reason: 'too-long' | 'unterminated', detail: string): void {
    receive();
    reject(reason, detail);
  }

  function drop(reason: DropReason, detail: string): void {
    accounts.dropped[reason] = (accounts.dropped[reason] ?? 0) + 1;
    warn(`dropped ${reason}`, `Dropping log lines (${reason}): ${detail}`);
  }

  function receive(): number {
    accounts.received += 1;
    sources.current.lines += 1;
    accounts.lastLineMs = now();
    return accounts.lastLineMs;
  }

  function reject(reason: RejectionReason, detail: string): void {
    accounts.rejected[reason] = (accounts.rejected[reason] ?? 0) + 1;
    warn(`rejected ${reason}`, `Cannot use a log line (${reason}): ${detail}.`);
  }
}
