/**
 * How figures are taken on a noisy machine: what is compared runs in turn, A B A B, in one run of the program, and a
 * ratio is made of two neighbours. Medians and the spread are printed, never the best run.
 */

/** What one run of a contender gave: figures by name, such as lines per second. */
export type Figures = Readonly<Record<string, number>>;

/** One of those that are compared. */
export interface Contender {
  readonly name: string;
  /** Does the work once. */
  run(): Promise<Figures>;
}

/** The runs of each contender, in the order in which they were made. */
export type Runs = Readonly<Record<string, readonly Figures[]>>;

/** Runs the contenders in turn, `rounds` times each, after one round that is not counted where `warmUp` is set. */
export async function inTurn(
  contenders: readonly Contender[],
  {
    rounds,
    warmUp = false,
    onRun = () => undefined,
  }: {
    rounds: number;
    warmUp?: boolean;
    onRun?: (name: string, figures: Figures) => void;
  },
): Promise<Runs> {
  const runs: Record<string, Figures[]> = Object.fromEntries(contenders.map(({ name }) => [name, []]));
  for (let round = warmUp ? -1 : 0; round < rounds; round += 1) {
    for (const { name, run } of contenders) {
      const figures = await run();
      if (round < 0) continue;
      runs[name]!.push(figures);
      onRun(name, figures);
    }
  }
  return runs;
}

/** Several values as one: the middle one, and the smallest and the greatest. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The spread of values, one at least; of an even number the median is the mean of the two in the middle. */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('The spread of no values was asked for: one at least is wanted.');
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return {
    median: (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2,
    min: sorted[0]!,
    max: sorted.at(-1)!,
  };
}

/** The spread of one figure over the runs of a contender. */
export function figureOf(runs: Runs, name: string, figure: string): Spread {
  return spreadOf(runs[name]!.map((figures) => figures[figure]!));
}

/** The spread of what one figure of `name` is to that of `other`, of neighbouring runs. */
export function ratioOf(runs: Runs, figure: string, name: string, other: string): Spread {
  return spreadOf(runs[name]!.map((figures, at) => figures[figure]! / runs[other]![at]![figure]!));
}

/** A row of the table that a benchmark prints. */
export interface Result {
  /** What is measured: `lines per CPU-second`. */
  readonly what: string;
  readonly measured: string;
  /** What it is measured against, with its figure. */
  readonly against: string;
  /** What is wanted; empty where a figure is only reported. */
  readonly wanted: string;
  readonly holds: boolean | undefined;
}

/** A result whose ratio has to be at least, or at most, so much. */
export function ratioResult(
  what: string,
  {
    measured,
    against,
    ratio,
    atLeast,
    atMost,
  }: { measured: string; against: string; ratio: Spread; atLeast?: number; atMost?: number },
): Result {
  const wanted = atLeast !== undefined ? `at least ${atLeast} ×` : atMost !== undefined ? `at most ${atMost} ×` : '';
  const holds =
    atLeast !== undefined ? ratio.median >= atLeast : atMost !== undefined ? ratio.median <= atMost : undefined;
  return { what, measured: `${measured}: ${spreadText(ratio, 2)} ×`, against, wanted, holds };
}

/** `5.2 (4.9–5.4)` */
export function spreadText({ median, min, max }: Spread, digits = 0): string {
  const text = (value: number): string =>
    value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${text(median)} (${text(min)}–${text(max)})`;
}

/** The results as a table in Markdown. */
export function tableOf(results: readonly Result[]): string {
  const rows = results.map(({ what, measured, against, wanted, holds }) => [
    what,
    measured,
    against,
    wanted,
    holds === undefined ? '' : holds ? 'yes' : '**no**',
  ]);
  return [['what', 'measured', 'against', 'wanted', 'holds'], ['---', '---', '---', '---', '---'], ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}
