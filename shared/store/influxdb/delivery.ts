/**
 * Delivers lines to InfluxDB. `influxdb-error.ts` classifies error responses.
 *
 * A rejected body (400, 413, 422) is halved until the faulty lines are isolated; all others are written. Lines
 * already written from a partially rejected body (422) are written again, which changes nothing.
 *
 * Rollups already count rejected requests, and their cumulative rows may be from a process that has ended. So
 * correction rows are added: with a cell whose count is -1, and ids derived from the line, so that a repetition
 * replaces them.
 */
import { createHash } from 'node:crypto';
import { detailedMessageOf } from '../../errors.js';
import { Histogram } from '../../sketch/histogram.js';
import { hasLatency } from '../../status.js';
import { retainedLevels, rowIdEnd, windowStart, type Cell, type RollupRow, type Scope } from '../../rollup/rollup.js';
import type { RefusedLine, DeadLetters } from '../dead-letters.js';
import { InfluxdbError } from './influxdb-error.js';
import { rollupLine } from './line-protocol.js';
import { isRequestLine, parseRequestLine } from './request-line.js';
import { compress, joinBodies, linesIn, linesMax, type Body } from './payload.js';

/** Minimum number of lines to halve to after a timeout. */
const linesMin = 100;

/** Dependencies of a `Delivery`. */
export interface DeliveryParts {
  /** Writes one body, or throws an `InfluxdbError`. */
  readonly post: (gzip: Buffer) => Promise<void>;
  readonly deadLetters: DeadLetters;
  readonly now: () => number;
}

/** Delivers bodies to InfluxDB. */
export class Delivery {
  readonly #post: DeliveryParts['post'];
  readonly #deadLetters: DeadLetters;
  readonly #now: () => number;
  /** Number of lines per write: halved if that was too much for InfluxDB or a proxy, and slowly raised again. */
  #linesPerWrite = linesMax;

  constructor({ post, deadLetters, now }: DeliveryParts) {
    this.#post = post;
    this.#deadLetters = deadLetters;
    this.#now = now;
  }

  /**
   * Resolves when all acceptable lines are written, to the number of rejected requests, which are now dead letters.
   * Throws a `StoreError` ('retry', 'hold') if InfluxDB is unavailable; then all bodies have to be delivered again.
   */
  async deliver(bodies: readonly Body[]): Promise<number> {
    const rejected: RefusedLine[] = [];
    for (const group of this.#groupsOf(bodies)) {
      if (group.lines <= this.#linesPerWrite) await this.#deliverBody(group, rejected);
      else await this.#deliverParts(await linesIn(group), this.#linesPerWrite, rejected);
    }
    if (rejected.length === 0) return 0;
    await this.#deadLetters.keep(rejected);
    const requests = rejected.flatMap(({ line }) => (isRequestLine(line) ? [line] : []));
    const corrections = requests.flatMap((line) => correctionsOf(line, this.#now()));
    // Requests that are too old for the bucket have no rows there, so a rejected correction can be ignored.
    await this.#deliverParts(corrections, this.#linesPerWrite, []);
    return requests.length;
  }

  /** Joins small bodies of several batches. */
  *#groupsOf(bodies: readonly Body[]): Generator<Body> {
    let group: Body[] = [];
    let lines = 0;
    for (const body of bodies) {
      if (group.length > 0 && lines + body.lines > this.#linesPerWrite) {
        yield joinBodies(group);
        group = [];
        lines = 0;
      }
      group.push(body);
      lines += body.lines;
    }
    if (group.length > 0) yield joinBodies(group);
  }

  async #deliverBody(body: Body, rejected: RefusedLine[], knownLines?: readonly string[]): Promise<void> {
    try {
      await this.#post(body.gzip);
      this.#linesPerWrite = Math.min(linesMax, this.#linesPerWrite + Math.ceil(this.#linesPerWrite / 10));
    } catch (error) {
      if (!(error instanceof InfluxdbError)) throw error;
      if (error.tooLarge)
        this.#linesPerWrite = Math.max(
          error.action === 'drop' ? 1 : linesMin,
          Math.floor(Math.min(body.lines, this.#linesPerWrite) / 2),
        );
      if (error.action !== 'drop') throw error;
      const lines = knownLines ?? (await linesIn(body));
      if (lines.length === 1 || error.refusedLines === lines.length)
        rejected.push(...lines.map((line) => ({ line, reason: detailedMessageOf(error) })));
      else await this.#deliverParts(lines, Math.ceil(lines.length / 2), rejected);
    }
  }

  async #deliverParts(lines: readonly string[], linesPerPart: number, rejected: RefusedLine[]): Promise<void> {
    for (let from = 0; from < lines.length; from += linesPerPart) {
      const part = lines.slice(from, from + linesPerPart);
      await this.#deliverBody(compress(`${part.join('\n')}\n`, part.length), rejected, part);
    }
  }
}

/**
 * Rollup rows that subtract a request from its windows in both scopes, as lines. Levels that do not retain rows of
 * its age need no correction.
 */
function correctionsOf(line: string, nowMs: number): string[] {
  const event = parseRequestLine(line);
  if (event === undefined) return []; // not a valid line, after damage that no checksum detected
  const { timeMs, source, host, method, status, size } = event;
  const durationMs = hasLatency({ status, method }) ? event.durationMs : null;
  const histogram = new Histogram();
  if (durationMs !== null) histogram.add(durationMs);
  const cell: Cell = {
    method,
    status,
    count: -1,
    sampledOut: 0,
    durationSumMs: -(durationMs ?? 0),
    durationMaxMs: 0,
    sizeSum: -size,
    histogram: histogram.negated(),
  };
  const rowId = createHash('sha256').update(line).digest().readUIntBE(0, 6) % rowIdEnd;
  const rowsOf = (scope: Scope): RollupRow[] =>
    retainedLevels(nowMs - timeMs, scope).map((level) => ({
      level,
      windowMs: windowStart(timeMs, level),
      rowId,
      source,
      host: scope === 'all' ? undefined : host,
      cells: [cell],
    }));
  return [...rowsOf('all'), ...rowsOf('host')].map(rollupLine);
}
