/**
 * Creates the rows of coarse levels. Closing segments only writes rows of the finest levels. A fold merges the rows
 * that a level received since the last fold, and appends the result to the next coarser level. Until then, a read of
 * the coarser level includes the finer rows.
 */
import { BIGINT, INTEGER, VARCHAR, type DuckDBConnection } from '@duckdb/node-api';
import { CellSet } from '../../rollup/cell-set.js';
import { nextTurn } from '../../next-turn.js';
import { unpackCells } from '../../rollup/cells.js';
import {
  coarserLevel,
  levelRetentionMsMax,
  levelsOf,
  scopes,
  windowStart,
  type Level,
  type RowKey,
  type Scope,
} from '../../rollup/rollup.js';
import type { Query, Read } from './read-pool.js';
import { texts } from './columns.js';
import { rollupTables, storedRow, type StoredRow } from './rollup-tables.js';
import { runCached } from './statements.js';

/** By `foldKey`, the greatest `closed` of the finer rows that a level includes. */
export type Folded = ReadonlyMap<string, number>;

/**
 * Merges the rows of level `from` whose number is greater than `after` and at most `closed`, into rows of level `to`.
 */
interface Fold {
  readonly scope: Scope;
  readonly from: Level;
  readonly to: Level;
  readonly after: number;
  readonly closed: number;
}

/** The rows that a fold appends. */
export interface PreparedFold extends Fold {
  readonly rows: readonly StoredRow[];
  /** Number of finer rows that they were merged from. */
  readonly taken: number;
  readonly version: number;
}

/** All levels to fold to, each with the next finer one. Finest first. */
const pairs = scopes
  .flatMap((scope) => levelsOf[scope].slice(1).map((to, at) => ({ scope, from: levelsOf[scope][at]!, to })))
  .sort((one, other) => one.to - other.to);

/** Delay of a fold after the end of a window, in milliseconds: by then, the segments of the window are closed. */
const settledMs = 90_000;
/** Number of waiting rows that triggers a fold at any time. Rows of sources have more cells. */
const rowsMax: Readonly<Record<Scope, number>> = { all: 5000, host: 50_000 };
/** Rows per page. */
const rowsPerPage = 2000;

/** The folds of an open file. */
export class RollupFolds {
  #folded: Map<string, number>;
  /** Rows of the next finer level that are not folded into a level yet, by `foldKey`: for each of `pairs`. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #foldedMs = new Map<string, number>();
  #version = 0;

  private constructor(folded: Map<string, number>) {
    this.#folded = folded;
  }

  /** Reads from a file how far its levels are folded. */
  static async load(connection: Pick<DuckDBConnection, 'run'>): Promise<RollupFolds> {
    const rows = (await (
      await connection.run('SELECT scope, level, closed, folded_ms FROM rollup_fold')
    ).getRows()) as [Scope, Level, bigint, bigint][];
    const folds = new RollupFolds(
      new Map(rows.map(([scope, level, closed]) => [foldKey(scope, level), Number(closed)])),
    );
    for (const [scope, level, , foldedMs] of rows) folds.#foldedMs.set(foldKey(scope, level), Number(foldedMs));
    await folds.#countWaiting(connection);
    return folds;
  }

  /** How far the levels are folded now. */
  get folded(): Folded {
    return this.#folded;
  }

  /** Counts rows that were written to their tables. */
  onClosed(rows: readonly RowKey[]): void {
    for (const { level, windowMs, host } of rows) {
      const scope = host === undefined ? 'all' : 'host';
      const to = coarserLevel(level, scope);
      if (to === undefined) continue;
      const waiting = this.#waiting.get(foldKey(scope, to))!;
      waiting.rows += 1;
      waiting.oldestMs = Math.min(waiting.oldestMs, windowMs);
    }
  }

  /**
   * Invalidates prepared folds and counts the waiting rows again. Call it after rows that are not folded yet may have
   * been deleted.
   */
  async onDeleted(connection: Pick<DuckDBConnection, 'run'>): Promise<void> {
    this.#version += 1;
    await this.#countWaiting(connection);
  }

  async #countWaiting(connection: Pick<DuckDBConnection, 'run'>): Promise<void> {
    for (const { scope, from, to } of pairs) {
      const [row] = await (
        await connection.run(
          `SELECT count(*), min(window_ms) FROM ${rollupTables[scope]} WHERE level = $1 AND closed > $2`,
          [from, BigInt(this.#foldedOf(scope, to))],
          [INTEGER, BIGINT],
        )
      ).getRows();
      this.#waiting.set(foldKey(scope, to), { rows: Number(row![0]), oldestMs: Number(row![1] ?? Infinity) });
    }
  }

  /**
   * Returns the next fold that is due: a window of its level has ended, many rows are waiting, or one of these is about
   * to be deleted for its age. `closedMax`: see `OpenWindows`.
   */
  due(closedMax: number, nowMs: number): Fold | undefined {
    const pair = pairs.find(({ scope, from, to }) => {
      const key = foldKey(scope, to);
      const { rows, oldestMs } = this.#waiting.get(key)!;
      const isOver =
        windowStart(nowMs - settledMs, to) !== windowStart((this.#foldedMs.get(key) ?? -Infinity) - settledMs, to);
      return rows > rowsMax[scope] || (rows > 0 && (isOver || nowMs - oldestMs > levelRetentionMsMax(from, scope)));
    });
    return pair && { ...pair, after: this.#foldedOf(pair.scope, pair.to), closed: closedMax };
  }

  /** Merges the rows of a fold. Reads them in pages, and yields to the event loop in between. */
  async prepare(read: Read, fold: Fold): Promise<PreparedFold> {
    const version = this.#version;
    const rows: StoredRow[] = [];
    let taken = 0;
    for (const page of await read((query) => pagesOf(query, fold))) {
      const added = await read((query) => mergePage(query, fold, page));
      rows.push(...added.rows);
      taken += added.taken;
    }
    return { ...fold, rows, taken, version };
  }

  /** Whether no rows have been deleted since the fold was prepared. */
  isValid({ version }: PreparedFold): boolean {
    return version === this.#version;
  }

  /** Records a fold in the file. Call it in the transaction that appends its rows, and `onFolded` after the commit. */
  async note(connection: DuckDBConnection, { scope, to, closed }: Fold, nowMs: number): Promise<void> {
    await runCached(
      connection,
      'DELETE FROM rollup_fold WHERE scope = $1 AND level = $2',
      [scope, to],
      [VARCHAR, INTEGER],
    );
    await runCached(
      connection,
      'INSERT INTO rollup_fold (scope, level, closed, folded_ms) VALUES ($1, $2, $3, $4)',
      [scope, to, BigInt(closed), BigInt(Math.floor(nowMs))],
      [VARCHAR, INTEGER, BIGINT, BIGINT],
    );
  }

  /** See `note`. */
  onFolded({ scope, to, closed, rows, taken }: PreparedFold, nowMs: number): void {
    this.#folded = new Map(this.#folded).set(foldKey(scope, to), closed); // a copy: snapshots share the old one
    this.#foldedMs.set(foldKey(scope, to), nowMs);
    const waiting = this.#waiting.get(foldKey(scope, to))!;
    waiting.rows -= taken;
    if (waiting.rows <= 0) Object.assign(waiting, { rows: 0, oldestMs: Infinity });
    this.onClosed(rows);
  }

  #foldedOf(scope: Scope, level: Level): number {
    return this.#folded.get(foldKey(scope, level)) ?? 0;
  }
}

interface Waiting {
  rows: number;
  /** Lower bound of the starts of their windows, in milliseconds since 1970. */
  oldestMs: number;
}

/** A condition that matches the rows of a level, and finer rows that are not folded into it yet. */
export function levelSql(
  { scope, level }: { readonly scope: Scope; readonly level: Level },
  folded: Folded,
  values: { add(value: bigint, type: typeof BIGINT): string },
): string {
  const conditions = [`level = ${level}`];
  for (let to = level, at = levelsOf[scope].indexOf(level) - 1; at >= 0; at -= 1) {
    const from = levelsOf[scope][at]!;
    conditions.push(`level = ${from} AND closed > ${values.add(BigInt(folded.get(foldKey(scope, to)) ?? 0), BIGINT)}`);
    to = from;
  }
  return `(${conditions.join(' OR ')})`;
}

function foldKey(scope: Scope, level: Level): string {
  return `${scope} ${level}`;
}

/** A range of windows and hosts, or windows and sources, that is folded in one step. Includes both ends. */
interface Page {
  readonly first: readonly [windowMs: bigint, name: string];
  last: readonly [windowMs: bigint, name: string];
}

async function pagesOf(query: Query, fold: Fold): Promise<Page[]> {
  const pages: Page[] = [];
  let rows = 0;
  for await (const [windows, names, counts] of query(
    `SELECT ${windowSql(fold)} AS start, ${texts(nameOf(fold))}, count(*) FROM ${sourceSql(fold)} GROUP BY start, ${nameOf(fold)} ORDER BY start, ${nameOf(fold)}`,
    [],
    [],
  )) {
    for (const [at, windowMs] of ((windows as bigint[] | undefined) ?? []).entries()) {
      const group = [windowMs, names![at] as string] as const;
      const page = pages.at(-1);
      if (page === undefined || rows >= rowsPerPage) {
        pages.push({ first: group, last: group });
        rows = 0;
      } else {
        page.last = group;
      }
      rows += Number(counts![at]);
    }
  }
  return pages;
}

async function mergePage(
  query: Query,
  fold: Fold,
  { first, last }: Page,
): Promise<{ rows: StoredRow[]; taken: number }> {
  const [windowMs, name, host] = [windowSql(fold), nameOf(fold), fold.scope === 'host' ? texts('host') : 'NULL'];
  const chunks = query(
    `SELECT import_id, ${windowMs}, ${texts('source')}, ${host}, cells FROM ${sourceSql(fold)}
      AND (${windowMs} > $1 OR (${windowMs} = $1 AND ${name} >= $2)) AND (${windowMs} < $3 OR (${windowMs} = $3 AND ${name} <= $4))`,
    [...first, ...last],
    [BIGINT, VARCHAR, BIGINT, VARCHAR],
  );
  const sums = new Map<
    string,
    {
      readonly importId: number;
      readonly windowMs: number;
      readonly source: string;
      readonly host: string | undefined;
      readonly cells: CellSet;
    }
  >();
  let taken = 0;
  for await (const [importIds, windows, sources, hosts, packed] of chunks) {
    for (const [at, importId] of ((importIds as bigint[] | undefined) ?? []).entries()) {
      if (taken % rowsPerTurn === 0) await nextTurn();
      taken += 1;
      const key = `${importId}\n${windows![at] as bigint}\n${sources![at] as string}\n${hosts![at] as string}`;
      let sum = sums.get(key);
      if (sum === undefined) {
        const ofHost = fold.scope === 'host' ? (hosts![at] as string) : undefined;
        sums.set(
          key,
          (sum = {
            importId: Number(importId),
            windowMs: Number(windows![at]),
            source: sources![at] as string,
            host: ofHost,
            cells: new CellSet(),
          }),
        );
      }
      for (const { method, status, ...aggregate } of unpackCells(packed![at] as string))
        sum.cells.add(method, status, aggregate, true);
    }
  }
  return {
    rows: [...sums.values()].map(({ importId, cells, ...key }) =>
      storedRow({ ...key, level: fold.to }, cells, importId),
    ),
    taken,
  };
}

/** Rows merged per turn of the event loop. */
const rowsPerTurn = 256;

function sourceSql({ scope, from, after, closed }: Fold): string {
  return `${rollupTables[scope]} WHERE level = ${from} AND closed > ${after} AND closed <= ${closed}`;
}

function windowSql({ to }: Fold): string {
  return `window_ms - window_ms % ${to * 1000}`;
}

function nameOf({ scope }: Fold): 'host' | 'source' {
  return scope === 'host' ? 'host' : 'source';
}
