import { rateLimitedWarn, type Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import type { CaddyEvent } from '../shared/caddy-event.js';
import type { RequestEvent } from '../shared/request-event.js';
import { formatAddress } from '../shared/settings/settings.js';
import { isPlausibleTime } from '../shared/store/retention.js';
import type { CollectorConfig } from './config.js';
import { CorrelatingDecoder } from './correlating-decoder.js';
import type { Decoded, Decoder } from './decode/decode.js';
import type { LearnedDuration } from './decode/duration.js';
import { beginningOf, redact } from './decode/redact.js';
import type { DropReason, LineAccounts, RejectionReason } from './ledger.js';
import type { LineSource, LineSources } from './line-sources.js';
import type { PartialLineMemory } from './lines.js';
import { PartialLines } from './partial-lines.js';

/** Dependencies of `LineIntake`. */
export interface LineIntakeParts {
  readonly recorder: Recorder;
  /** The lines are attributed to its `current` source. */
  readonly sources: LineSources;
  readonly accounts: LineAccounts;
  readonly partialLineMemory: PartialLineMemory;
  readonly log: Log;
  /** See `CollectorParts`. */
  readonly rollupRetentionMs: number | undefined;
  readonly now: () => number;
}

type Understood = Exclude<Decoded, { readonly kind: 'rejected' }>;

/** Interval between updates of the example of a rejected line, per reason, in milliseconds. */
const exampleIntervalMs = 1000;

const rejectionDetails: Partial<Record<RejectionReason, string>> = {
  'unknown-encoder': 'it is a request in an unsupported encoding, such as ECS, GELF or logfmt: use `format json`',
  'bad-status': 'it is a request without a status, which a filter may have removed',
};

/** Decodes the lines of the sockets, accounts for each of them, and records the requests. */
export class LineIntake {
  readonly #config: CollectorConfig;
  readonly #parts: LineIntakeParts;
  readonly #accounts: LineAccounts;
  readonly #sources: LineSources;
  readonly #recorder: Recorder;
  readonly #decoder: Decoder;
  readonly #warn: ReturnType<typeof rateLimitedWarn>;
  readonly #lastExampleMs: Partial<Record<RejectionReason, number>> = {};
  #understood = 0;

  constructor(config: CollectorConfig, parts: LineIntakeParts) {
    this.#config = config;
    this.#parts = parts;
    this.#accounts = parts.accounts;
    this.#sources = parts.sources;
    this.#recorder = parts.recorder;
    this.#warn = rateLimitedWarn(parts.log.warn);
    this.#decoder = new CorrelatingDecoder({
      ...config,
      onTimeWithoutZone: () => {
        parts.sources.current.isWithoutZone = true;
      },
    });
  }

  /** Number of valid lines so far. */
  get understood(): number {
    return this.#understood;
  }

  /** The learned duration formats, by logger. */
  durationFormats(): Readonly<Record<string, LearnedDuration>> {
    return this.#decoder.durationFormats();
  }

  /** Takes a line: see `LineHandlers.onLine`. */
  take(bytes: Buffer, from: number, to: number): void {
    const arrivalMs = this.#receive(); // first, since recording may write the ledger
    const decoded = this.#decoder.decodeLine(bytes, from, to, arrivalMs);
    if (decoded.kind === 'rejected') this.#takeRejected(decoded.reason, bytes.toString('utf8', from, to), arrivalMs);
    else this.#count(decoded, arrivalMs);
  }

  /** Counts a line that is longer than `lineBytesMax`. */
  takeTooLong(): void {
    this.#receive();
    this.#rejectTooLong();
  }

  /** Counts a line whose end has not arrived. */
  takeUnterminated(): void {
    this.#receive();
    this.#reject('unterminated', 'the connection ended in the middle of it');
  }

  /** Counts a line for whose beginning there was no memory. */
  takeWithoutMemory(): void {
    this.#receive();
    this.#dropWithoutMemory();
  }

  /** Counts lines that the supervisor has received and could not keep. */
  countUnread(lines: number): void {
    this.#accounts.received += lines;
    this.#accounts.dropped['no-worker'] = (this.#accounts.dropped['no-worker'] ?? 0) + lines;
  }

  #receive(): number {
    const arrivalMs = this.#parts.now();
    this.#accounts.received += 1;
    this.#accounts.lastLineMs = arrivalMs;
    this.#sources.current.lines += 1;
    return arrivalMs;
  }

  /** Rejects a line, unless it is a part of a line that was split into several envelopes. */
  #takeRejected(reason: RejectionReason, line: string, arrivalMs: number): void {
    if (reason === 'bad-status') {
      this.#rejectWithExample(reason, line, arrivalMs);
      return;
    }
    const source = this.#sources.current;
    source.partialLines ??= new PartialLines(this.#config.lineBytesMax, this.#parts.partialLineMemory);
    const part = source.partialLines.add(line, arrivalMs);
    switch (part.kind) {
      case 'not-a-part':
        this.#rejectWithExample(reason, line, arrivalMs);
        break;
      case 'complete': {
        const decoded = this.#decoder.decode(part.line, arrivalMs);
        if (decoded.kind === 'rejected') this.#rejectWithExample(decoded.reason, part.line, arrivalMs);
        else this.#count(decoded, arrivalMs);
        break;
      }
      case 'incomplete':
        this.#accounts.received -= 1; // counted once the line is complete
        break;
      case 'too-long':
        this.#rejectTooLong();
        break;
      case 'memory-full':
        this.#dropWithoutMemory();
        break;
    }
  }

  /** Counts a line that was understood, and records its request. */
  #count(decoded: Understood, arrivalMs: number): void {
    this.#understood += 1;
    if (decoded.kind === 'runtime') {
      this.#accounts.runtime += 1;
      if (decoded.event !== undefined) this.#recordEvent(decoded.event, arrivalMs);
      return;
    }
    if (decoded.timeOfArrival) this.#accounts.timeOfArrival += 1;
    else measureLag(this.#sources.current, arrivalMs - decoded.event.timeMs);
    this.#record(decoded.event, arrivalMs);
  }

  #recordEvent(event: CaddyEvent, arrivalMs: number): void {
    const { rollupRetentionMs } = this.#parts;
    if (!isPlausibleTime(event.timeMs, { nowMs: arrivalMs, rollupRetentionMs })) return;
    this.#accounts.events += 1;
    this.#recorder.recordEvent(event);
  }

  #record(request: RequestEvent, arrivalMs: number): void {
    const { rollupRetentionMs } = this.#parts;
    if (!isPlausibleTime(request.timeMs, { nowMs: arrivalMs, rollupRetentionMs }))
      this.#reject('bad-time', 'its time is more than a day ahead, or older than RETENTION_ROLLUPS');
    else if (!this.#recorder.record(request))
      this.#drop(
        this.#recorder.full,
        this.#recorder.problem ?? 'requests arrive faster than they are stored, and the memory limit is reached',
      );
  }

  #rejectWithExample(reason: RejectionReason, line: string, arrivalMs: number): void {
    this.#updateExample(reason, line, arrivalMs);
    const { http } = this.#config;
    const ledger = http === undefined ? 'the ledger (COLLECTOR_HTTP is off)' : `http://${formatAddress(http)}/ledger`;
    this.#reject(
      reason,
      `${rejectionDetails[reason] ?? 'it is not a line of Caddy'}; ${ledger} has the count and an example`,
    );
  }

  /** Updates the redacted example for a reason, at most once per second: redaction is slower than decoding. */
  #updateExample(reason: RejectionReason, line: string, arrivalMs: number): void {
    if (Math.abs(arrivalMs - (this.#lastExampleMs[reason] ?? 0)) < exampleIntervalMs) return;
    this.#lastExampleMs[reason] = arrivalMs;
    this.#accounts.examples[reason] = redact(beginningOf(line));
  }

  #rejectTooLong(): void {
    this.#reject('too-long', `it is longer than COLLECTOR_LINE_BYTES_MAX, ${this.#config.lineBytesMax} bytes`);
  }

  #dropWithoutMemory(): void {
    this.#drop('memory-full', 'the memory for partial lines is full');
  }

  #drop(reason: DropReason, detail: string): void {
    this.#accounts.dropped[reason] = (this.#accounts.dropped[reason] ?? 0) + 1;
    this.#warn(`dropped ${reason}`, `Dropping log lines (${reason}): ${detail}`);
  }

  #reject(reason: RejectionReason, detail: string): void {
    this.#accounts.rejected[reason] = (this.#accounts.rejected[reason] ?? 0) + 1;
    this.#warn(`rejected ${reason}`, `Cannot use a log line (${reason}): ${detail}.`);
  }
}

function measureLag(source: LineSource, lagMs: number): void {
  if (lagMs < source.lagMsMin) source.lagMsMin = lagMs;
}
