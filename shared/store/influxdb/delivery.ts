/**
 * Brings lines to InfluxDB, whatever it answers: see the table of answers in `influxdb-error.ts`.
 *
 * A body that is refused for good (400, 413, 422) is halved until the lines that are at fault are alone; the others are
 * written. What InfluxDB has taken of a body that it refused in part (422) is written again, which changes nothing.
 *
 * A request that is refused is in the rollups already, whose rows are cumulative and may have been made by a process
 * that is gone. So rows are added that take it away again: with a cell whose count is -1, and ids that follow from the
 * line, so that a repetition replaces them.
 */
import { createHash } from 'node:crypto';
import { detailedMessageOf } from '../../errors.js';
import { Histogram } from '../../sketch/histogram.js';
import { hasLatency } from '../../status.js';
import { retainedLevels, rowIdEnd, windowStart, type Cell, type RollupRow, type Scope } from '../../rollup/rollup.js';
import type { RefusedLine, DeadLetters } from '../dead-letters.js';
import { InfluxdbError } from './influxdb-error.js';
import { isRequestLine, parseRequestLine, rollupLine } from './line-protocol.js';
import { compress, joinBodies, linesIn, linesMax, type Body } from './payload.js';

/** Brings bodies to InfluxDB. */
export interface Delivery {
  /**
   * Resolves when InfluxDB has written all lines that it ever takes: to how many requests it refused, which are dead
   * letters now. Throws a `StoreError` ('retry', 'hold') when it takes nothing at present; then all of it is to be
   * delivered again.
   */
  deliver(bodies: readonly Body[]): Promise<number>;
}

/** What is not halved any more on a timeout, in lines. */
const linesMin = 100;

/** `post` writes one body, or throws an `InfluxdbError`. */
export function createDelivery({
  post,
  deadLetters,
  now,
}: {
  post: (gzip: Buffer) => Promise<void>;
  deadLetters: DeadLetters;
  now: () => number;
}): Delivery {
  /** How many lines go at once: halved when that was too much for InfluxDB or for a proxy, and slowly raised again. */
  let linesAtOnceMax = linesMax;

  return {
    async deliver(bodies) {
      const refused: RefusedLine[] = [];
      for (const group of groupsOf(bodies)) {
        if (group.lines <= linesAtOnceMax) await deliverBody(group, refused);
        else await deliverParts(await linesIn(group), linesAtOnceMax, refused);
      }
      if (refused.length === 0) return 0;
      await deadLetters.keep(refused);
      const requests = refused.flatMap(({ line }) => (isRequestLine(line) ? [line] : []));
      const corrections = requests.flatMap((line) => correctionsOf(line, now()));
      // What is too old for the bucket is so in each level; those rows are not there, and their corrections need not
      // be.
      await deliverParts(corrections, linesAtOnceMax, []);
      return requests.length;
    },
  };

  /** Small bodies of several batches go together. */
  function* groupsOf(bodies: readonly Body[]): Generator<Body> {
    let group: Body[] = [];
    let lines = 0;
    for (const body of bodies) {
      if (group.length > 0 && lines + body.lines > linesAtOnceMax) {
        yield joinBodies(group);
        group = [];
        lines = 0;
      }
      group.push(body);
      lines += body.lines;
    }
    if (group.length > 0) yield joinBodies(group);
  }

  async function deliverBody(body: Body, refused: RefusedLine[], knownLines?: readonly string[]): Promise<void> {
    try {
      await post(body.gzip);
      linesAtOnceMax = Math.min(linesMax, linesAtOnceMax + Math.ceil(linesAtOnceMax / 10));
    } catch (error) {
      if (!(error instanceof InfluxdbError)) throw error;
      if (error.tooLarge)
        linesAtOnceMax = Math.max(
          error.action === 'drop' ? 1 : linesMin,
          Math.floor(Math.min(body.lines, linesAtOnceMax) / 2),
        );
      if (error.action !== 'drop') throw error;
      const lines = knownLines ?? (await linesIn(body));
      if (lines.length === 1 || error.refusedLines === lines.length)
        refused.push(...lines.map((line) => ({ line, reason: detailedMessageOf(error) })));
      else await deliverParts(lines, Math.ceil(lines.length / 2), refused);
    }
  }

  async function deliverParts(lines: readonly string[], linesAtOnce: number, refused: RefusedLine[]): Promise<void> {
    for (let from = 0; from < lines.length; from += linesAtOnce) {
      const part = lines.slice(from, from + linesAtOnce);
      await deliverBody(compress(`${part.join('\n')}\n`, part.length), refused, part);
    }
  }
}

/**
 * Rollup rows that subtract a request from its windows, in both scopes, as lines. Levels that do not keep rows of its
 * age have nothing to correct.
 */
function correctionsOf(line: string, nowMs: number): string[] {
  const event = parseRequestLine(line);
  if (event === undefined) return []; // what InfluxDB refused may be no line at all, after damage that no checksum saw
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
