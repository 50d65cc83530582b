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
import type { HeldMemory } from './lines.js';
import { PartialLines } from './partial-lines.js';
import { formatAddress } from '../shared/settings/settings.js';

/** A collector that is running. */
export interface Collector {
  /** With the ports that were really taken. */
  readonly addresses: readonly ListenAddress[];
  /** The address of `/ledger` and the rest; `undefined` when it is off. */
  readonly httpUrl: string | undefined;
  readonly ledger: () => Ledger;
  /** The times of the last requests, for the collector that goes on after this one. */
  readonly usedTimes: () => UsedTimes;
  /**
   * Takes what has arrived, stores it, and stops; resolves to how many requests were not stored. The store stays open.
   */
  stop(): Promise<number>;
}

/** What the collector works with. */
export interface CollectorParts {
  readonly store: Store;
  readonly log: Log;
  readonly hostsMax: number;
  /** Hosts of Caddy's configuration. Default: none. */
  readonly configuredHosts?: ConfiguredHosts | undefined;
  readonly clientIp: ClientIpPolicy;
  readonly countryOf?: CountryOf | undefined;
  /** The part of the requests that are kept one by one, from 0 to 1: 1. */
  readonly sampleRatio?: number | undefined;
  /**
   * What requests may take in memory before they are stored, in bytes; lines that have begun may take a quarter of it
   * more.
   */
  readonly memoryBytesMax?: number;
  /** Retention of rollups, in milliseconds: older lines are rejected. Default: 400 days. */
  readonly rollupRetentionMs?: number | undefined;
  /** Where stream sockets come from; this process opens them when not given. */
  readonly openStream?: OpenStream | undefined;
  /** What the collector before this one has left. */
  readonly usedTimes?: UsedTimes | undefined;
  readonly now?: () => number;
  /** See `LineSources`. */
  readonly skewHalfWindowMs?: number;
}

const whyRefused: Readonly<Record<'not-allowed' | NoRoom, string>> = {
  'not-allowed': 'its address is not in COLLECTOR_ALLOW. Add it there if it should log here',
  'too-many-connections': 'COLLECTOR_CONNECTIONS_MAX is reached. Raise it if all of them are yours',
  'too-many-of-peer': 'its address has three quarters of COLLECTOR_CONNECTIONS_MAX. Raise it if all of them are yours',
};

/** How often an example of a rejected line is kept for each reason, in milliseconds. */
const exampleEveryMs = 1000;

const whyNoRoom = 'the beginnings of other lines take all the memory for them';

const whyRejected: Partial<Record<RejectionReason, string>> = {
  'unknown-encoder': 'it is a request in an encoding that is not read, such as ECS, GELF or logfmt: use `format json`',
  'bad-status': 'it is a request without a status: a filter may have taken it away',
};

/** How often the kernel is asked how many datagrams it dropped, in milliseconds. */
const lossWatchMs = 5000;

/**
 * How often the clocks of Caddys are looked at, and how often one is reported that is off now and then, in
 * milliseconds.
 */
const skewLookMs = 5000;
const skewWarnMs = 600_000;

/** Starts a collector. Throws a `UsageError` when it cannot listen. */
export async function startCollector(config: CollectorConfig, parts: CollectorParts): Promise<Collector> {
  const { store, log, now = Date.now } = parts;
  const accounts = createLineAccounts();
  const decoder = createDecoder({
    ...config,
    onTimeWithoutZone: () => {
      sources.current.isWithoutZone = true;
    },
  });
  const ledgerDue = createLedgerSchedule(config.id);
  const recorder: Recorder = createRecorder({
    ...parts,
    name: config.id,
    ledger: (counts) => ledgerDue(ledgerOf(accounts, counts), now()),
  });
  const warn = rateLimitedWarn(log.warn);
  const sources = new LineSources({ now, halfWindowMs: parts.skewHalfWindowMs, timeZone: config.timeZone });
  const warnOfSkew = rateLimitedWarn(log.warn, { intervalMs: skewWarnMs });
  const heldMemory: HeldMemory = { bytes: 0, bytesMax: Math.ceil((parts.memoryBytesMax ?? memoryBytesMaxDefault) / 4) };
  const exampleMs: Partial<Record<RejectionReason, number>> = {};
  let linesUnderstood = 0;
  const connections = new ConnectionLimit(config.connectionsMax);
  const whyTooLong = `it is longer than COLLECTOR_LINE_BYTES_MAX, ${config.lineBytesMax} bytes`;
  const ledgerPlace =
    config.http === undefined ? 'the ledger (COLLECTOR_HTTP is off)' : `http://${formatAddress(config.http)}/ledger`;

  const listeners = await listen(
    config.listen,
    {
      lineBytesMax: config.lineBytesMax,
      unixMode: config.unixMode,
      connections,
      sources,
      isAllowed: allowList(config.allow),
      takeLine(bytes, from, to) {
        const request = decoder.decodeKnown(bytes, from, to);
        if (request === undefined) return false;
        takeRequest(request, receive(), sources.current);
        return true;
      },
      onLine,
      onTooLong,
      onNoRoom,
      heldMemory,
      onUnterminated,
      onRefused: (why, remoteAddress) => {
        countWarning(why === 'not-allowed' ? 'peers-not-allowed' : 'peers-too-many-connections');
        warn(why, `Turned a peer away: ${whyRefused[why]}.`, {
          peer: remoteAddress ?? 'gone',
          connectionsMax: config.connectionsMax,
        });
      },
      onEvicted: (remoteAddress) => {
        countWarning('connections-evicted');
        warn(
          'evicted',
          'Closed a connection that has not sent a line, to make room for another: COLLECTOR_CONNECTIONS_MAX is reached. Raise it if they are all yours.',
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
        "The kernel dropped log lines that came over UDP faster than they were read: they are lost. Use TCP, or raise the kernel's net.core.rmem_max.",
        { datagrams: lost - before },
      );
      accounts.warnings['datagrams-lost'] = lost;
    });
  }, lossWatchMs);
  const skewWatch = setInterval(
    () => {
      const { found, largestMs } = sources.look();
      if (largestMs > 0) accounts.warnings['clock-skew'] = Math.round(largestMs / 1000);
      else delete accounts.warnings['clock-skew'];
      for (const source of found) reportSkew(source);
      for (let cut = sources.expirePartialLines(); cut > 0; cut -= 1) onUnterminated();
    },
    Math.min(skewLookMs, (parts.skewHalfWindowMs ?? Infinity) / 2),
  );
  const ledger = (): Ledger => ledgerOf(accounts, recorder.counts, store.spool);
  const status =
    config.http === undefined
      ? undefined
      : await startStatusServer(config.http, {
          id: config.id,
          ledger,
          accounts,
          durationFormats: decoder.durationFormats,
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
      // Together: one after the other they could take longer than a service manager waits.
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

  function onLine(line: string): void {
    const arrivalMs = receive(); // first: recording may take a snapshot of the ledger
    const decoded = decoder.decode(line, arrivalMs);
    if (decoded.kind !== 'rejected' || decoded.reason === 'bad-status') {
      takeDecoded(decoded, line, arrivalMs);
      return;
    }
    const source = sources.current;
    source.partialLines ??= new PartialLines(config.lineBytesMax, heldMemory);
    const taken = source.partialLines.take(line, arrivalMs);
    switch (taken.kind) {
      case 'not-a-part':
        takeDecoded(decoded, line, arrivalMs);
        break;
      case 'whole':
        takeDecoded(decoder.decode(taken.line, arrivalMs), taken.line, arrivalMs);
        break;
      case 'held':
        accounts.received -= 1; // it counts when it is whole
        break;
      case 'too-long':
        reject('too-long', whyTooLong);
        break;
      case 'no-room':
        drop('memory-full', whyNoRoom);
        break;
    }
  }

  function takeDecoded(decoded: Decoded, line: string, arrivalMs: number): void {
    switch (decoded.kind) {
      case 'request':
        if (decoded.timeOfArrival) accounts.timeOfArrival += 1;
        takeRequest(decoded.event, arrivalMs, decoded.timeOfArrival ? undefined : sources.current);
        break;
      case 'runtime':
        accounts.runtime += 1;
        linesUnderstood += 1;
        break;
      case 'rejected':
        keepExample(decoded.reason, line, arrivalMs);
        reject(
          decoded.reason,
          `${whyRejected[decoded.reason] ?? 'it is not what Caddy writes'}; ${ledgerPlace} counts these and shows an example`,
        );
        break;
    }
  }

  /**
   * Keeps what a rejected line looks like, a line a second for each reason: a flood of them would cost more to redact
   * than to read.
   */
  function keepExample(reason: RejectionReason, line: string, arrivalMs: number): void {
    if (Math.abs(arrivalMs - (exampleMs[reason] ?? 0)) < exampleEveryMs) return;
    exampleMs[reason] = arrivalMs;
    accounts.examples[reason] = redact(beginningOf(line));
  }

  /** `source` is where it came from, unless its time is that of its arrival. */
  function takeRequest(request: RequestEvent, arrivalMs: number, source: LineSource | undefined): void {
    if (source !== undefined && arrivalMs - request.timeMs < source.lagMsMin)
      source.lagMsMin = arrivalMs - request.timeMs;
    linesUnderstood += 1;
    if (!isPlausibleTime(request.timeMs, { nowMs: arrivalMs, rollupRetentionMs: parts.rollupRetentionMs }))
      reject('bad-time', 'its time is more than a day ahead, or older than RETENTION_ROLLUPS');
    else if (!recorder.record(request))
      drop(
        recorder.full,
        recorder.problem ?? 'lines come faster than they are stored, and the memory for them is full',
      );
  }

  function reportSkew(source: LineSource): void {
    const { peer, skewMs = 0 } = source;
    const seconds = Math.round(Math.abs(skewMs) / 1000);
    const zone = sources.zoneHint(source);
    const mend = zone ?? 'Set the clocks of both machines with NTP';
    // One message for all connections of a machine.
    warnOfSkew(
      peer.replace(/:\d+$/, ''),
      skewMs < 0
        ? `The clock of a Caddy is ${seconds} s ahead of this machine's: its requests are counted at the wrong time. ${mend}.`
        : `The clock of a Caddy is ${seconds} s behind this machine's${zone === undefined ? ', or its lines take that long to arrive' : ''}: its requests are counted at the time that Caddy gives them. ${mend}.`,
      { peer },
    );
  }

  function onTooLong(): void {
    onCut('too-long', whyTooLong);
  }

  function onUnterminated(): void {
    onCut('unterminated', 'the connection ended in the middle of it');
  }

  function onNoRoom(): void {
    receive();
    drop('memory-full', whyNoRoom);
  }

  function onCut(reason: 'too-long' | 'unterminated', detail: string): void {
    receive();
    reject(reason, detail);
  }

  function drop(reason: DropReason, why: string): void {
    accounts.dropped[reason] = (accounts.dropped[reason] ?? 0) + 1;
    warn(`dropped ${reason}`, `Dropping log lines (${reason}): ${why}`);
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
