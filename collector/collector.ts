import { rateLimitedWarn, type Log } from '../shared/log.js';
import { createRecorder, memoryBytesMaxDefault, type Recorder } from '../shared/record/recorder.js';
import type { RecordingPolicy } from '../shared/record/recording-policy.js';
import type { UsedTimes } from '../shared/record/unique-time.js';
import type { Ledger, LedgerWarning, Store } from '../shared/store/store.js';
import type { CollectorConfig } from './config.js';
import { startStatusServer, type StatusServer } from './status-server.js';
import { LineIntake } from './line-intake.js';
import { LineSources, type LineSource } from './line-sources.js';
import { createLedgerSchedule, createLineAccounts, ledgerOf } from './ledger.js';
import { formatListenAddress, type ListenAddress } from './listen/address.js';
import { listen } from './listen/listen.js';
import type { Listener, ListenOptions } from './listen/listener.js';
import { allowList, ConnectionLimit, type NoRoom } from './listen/peers.js';
import type { OpenStream } from './listen/sockets.js';
import type { PartialLineMemory } from './lines.js';

/** A running collector. */
export interface Collector {
  /** The listen addresses, with the ports that were bound. */
  readonly addresses: readonly ListenAddress[];
  /** Base URL of the HTTP server; `undefined` if it is off. */
  readonly httpUrl: string | undefined;
  ledger(): Ledger;
  /** Timestamps of the last requests, for the collector that replaces this one. */
  usedTimes(): UsedTimes;
  /**
   * Reads what has arrived, stores it, and stops. Resolves to the number of requests that could not be stored. The
   * store stays open.
   */
  stop(): Promise<number>;
}

/** Dependencies and limits of a collector. */
export interface CollectorParts extends RecordingPolicy {
  readonly store: Store;
  readonly log: Log;
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

const refusalReasons: Readonly<Record<'not-allowed' | NoRoom, string>> = {
  'not-allowed': 'its address is not in COLLECTOR_ALLOW. Add it if this peer should send logs',
  'too-many-connections': 'COLLECTOR_CONNECTIONS_MAX is reached. Raise it if all connections are yours',
  'too-many-of-peer':
    'its address uses three quarters of COLLECTOR_CONNECTIONS_MAX. Raise it if all connections are yours',
};

/** Interval between reads of the kernel's count of dropped datagrams, in milliseconds. */
const lossWatchMs = 5000;

/** Interval between checks for clock skew, in milliseconds. */
const skewCheckMs = 5000;
/** Minimum interval between warnings about the same skewed clock, in milliseconds. */
const skewWarnMs = 600_000;

/** Starts a collector. Throws a `UsageError` if it cannot listen. */
export async function startCollector(config: CollectorConfig, parts: CollectorParts): Promise<Collector> {
  const collector = new SocketCollector(config, parts);
  await collector.start();
  return collector;
}

class SocketCollector implements Collector {
  readonly #config: CollectorConfig;
  readonly #parts: CollectorParts;
  readonly #accounts = createLineAccounts();
  readonly #sources: LineSources;
  readonly #recorder: Recorder;
  readonly #intake: LineIntake;
  readonly #connections: ConnectionLimit;
  readonly #partialLineMemory: PartialLineMemory;
  readonly #warn: ReturnType<typeof rateLimitedWarn>;
  readonly #warnOfSkew: ReturnType<typeof rateLimitedWarn>;
  #listeners: readonly Listener[] = [];
  #watches: readonly NodeJS.Timeout[] = [];
  #status: StatusServer | undefined;

  constructor(config: CollectorConfig, parts: CollectorParts) {
    const { log, now = Date.now } = parts;
    this.#config = config;
    this.#parts = parts;
    this.#connections = new ConnectionLimit(config.connectionsMax);
    this.#warn = rateLimitedWarn(log.warn);
    this.#warnOfSkew = rateLimitedWarn(log.warn, { intervalMs: skewWarnMs });
    this.#partialLineMemory = { bytes: 0, bytesMax: Math.ceil((parts.memoryBytesMax ?? memoryBytesMaxDefault) / 4) };
    this.#sources = new LineSources({
      now,
      halfWindowMs: parts.skewHalfWindowMs,
      timeZone: config.timeZone,
      log,
    });
    const dueLedger = createLedgerSchedule(config.id);
    this.#recorder = createRecorder({
      ...parts,
      name: config.id,
      ledger: (counts) => dueLedger(ledgerOf(this.#accounts, counts), now()),
    });
    this.#intake = new LineIntake(config, {
      recorder: this.#recorder,
      sources: this.#sources,
      accounts: this.#accounts,
      partialLineMemory: this.#partialLineMemory,
      log,
      rollupRetentionMs: parts.rollupRetentionMs,
      now,
    });
  }

  async start(): Promise<void> {
    try {
      this.#listeners = await listen(this.#config.listen, this.#listenOptions(), this.#parts.openStream);
      this.#watches = [
        setInterval(() => void this.#checkLoss(), lossWatchMs),
        setInterval(
          () => {
            this.#checkSources();
          },
          Math.min(skewCheckMs, (this.#parts.skewHalfWindowMs ?? Infinity) / 2),
        ),
      ];
      this.#status = await this.#startStatus();
    } catch (error) {
      await this.#stopListening();
      await this.#recorder.close();
      throw error;
    }
    this.#parts.log.info(`Listening on ${this.addresses.map(formatListenAddress).join(', ')}.`);
  }

  get addresses(): readonly ListenAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  get httpUrl(): string | undefined {
    return this.#status?.url;
  }

  ledger(): Ledger {
    return ledgerOf(this.#accounts, this.#recorder.counts, this.#parts.store.spool);
  }

  usedTimes(): UsedTimes {
    return this.#recorder.usedTimes();
  }

  async stop(): Promise<number> {
    await this.#stopListening();
    // In parallel: in sequence they could exceed a service manager's stop timeout.
    const [lost] = await Promise.all([this.#recorder.close(), this.#status?.stopImports()]);
    await this.#status?.stop();
    const { received, accepted, stored, spooled } = this.ledger();
    this.#parts.log.info('Stopped.', { received, accepted, stored, spooled });
    return lost;
  }

  async #stopListening(): Promise<void> {
    for (const watch of this.#watches) clearInterval(watch);
    await Promise.all(this.#listeners.map((listener) => listener.stop()));
  }

  #listenOptions(): ListenOptions {
    const intake = this.#intake;
    const { connectionsMax } = this.#config;
    return {
      lineBytesMax: this.#config.lineBytesMax,
      unixMode: this.#config.unixMode,
      connections: this.#connections,
      sources: this.#sources,
      partialLineMemory: this.#partialLineMemory,
      isAllowed: allowList(this.#config.allow),
      onLine: (bytes, from, to) => {
        intake.take(bytes, from, to);
      },
      onTooLong: () => {
        intake.takeTooLong();
      },
      onMemoryFull: () => {
        intake.takeWithoutMemory();
      },
      onUnterminated: () => {
        intake.takeUnterminated();
      },
      onDropped: (lines) => {
        intake.countUnread(lines);
      },
      linesUnderstood: () => intake.understood,
      onRefused: (reason, remoteAddress) => {
        this.#countWarning(reason === 'not-allowed' ? 'peers-not-allowed' : 'peers-too-many-connections');
        this.#warn(reason, `Refused a peer: ${refusalReasons[reason]}.`, {
          peer: remoteAddress ?? 'gone',
          connectionsMax,
        });
      },
      onEvicted: (remoteAddress) => {
        this.#countWarning('connections-evicted');
        this.#warn(
          'evicted',
          'COLLECTOR_CONNECTIONS_MAX is reached: closed a connection that has never sent a valid line, to make room for a new one. Raise it if all connections are yours.',
          { peer: remoteAddress ?? 'unix', connectionsMax },
        );
      },
      onError: (message) => {
        this.#warn('socket', `A connection failed: ${message}`);
      },
    };
  }

  async #startStatus(): Promise<StatusServer | undefined> {
    const { store, log } = this.#parts;
    const { id, http, lineBytesMax } = this.#config;
    if (http === undefined) return undefined;
    return await startStatusServer(http, {
      id,
      ledger: () => this.ledger(),
      accounts: this.#accounts,
      durationFormats: () => this.#intake.durationFormats(),
      recorder: this.#recorder,
      store,
      log,
      connections: this.#connections,
      sources: this.#sources,
      lostDatagrams: () => this.#lostDatagrams(),
      imports: { ...this.#parts, id, decoder: this.#config, lineBytesMax },
    });
  }

  /** Number of datagrams that the kernel has dropped since the start; `null` if unknown. */
  async #lostDatagrams(): Promise<number | null> {
    const counts = (await Promise.all(this.#listeners.map((listener) => listener.lost()))).filter(
      (count) => count !== undefined,
    );
    return counts.length === 0 ? null : counts.reduce((sum, count) => sum + count, 0);
  }

  async #checkLoss(): Promise<void> {
    const lost = await this.#lostDatagrams();
    const before = this.#accounts.warnings['datagrams-lost'] ?? 0;
    if (lost === null || lost <= before) return;
    this.#warn(
      'datagrams',
      "Log lines were lost: the kernel's UDP receive buffer was full, and it dropped datagrams. Use TCP, or raise net.core.rmem_max.",
      { datagrams: lost - before },
    );
    this.#accounts.warnings['datagrams-lost'] = lost;
  }

  /** Checks for clock skew, and for partial lines whose rest has not arrived. */
  #checkSources(): void {
    const { found, largestMs } = this.#sources.checkSkew();
    if (largestMs > 0) this.#accounts.warnings['clock-skew'] = Math.round(largestMs / 1000);
    else delete this.#accounts.warnings['clock-skew'];
    for (const source of found) this.#reportSkew(source);
    for (let left = this.#sources.expirePartialLines(); left > 0; left -= 1) this.#intake.takeUnterminated();
  }

  #reportSkew(source: LineSource): void {
    const { peer, skewMs = 0 } = source;
    const seconds = Math.round(Math.abs(skewMs) / 1000);
    const zone = this.#sources.zoneHint(source);
    const advice = zone ?? 'Set the clocks of both machines with NTP';
    // One warning for all connections of a machine.
    this.#warnOfSkew(
      peer.replace(/:\d+$/, ''),
      skewMs < 0
        ? `The clock of a Caddy is ${seconds} s ahead of this machine's: its requests are counted at the wrong time. ${advice}.`
        : `The clock of a Caddy is ${seconds} s behind this machine's${zone === undefined ? ', or its lines take that long to arrive' : ''}: its requests are counted at the time in the log line. ${advice}.`,
      { peer },
    );
  }

  #countWarning(warning: LedgerWarning): void {
    this.#accounts.warnings[warning] = (this.#accounts.warnings[warning] ?? 0) + 1;
  }
}
