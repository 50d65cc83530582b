/** Starts and stops the parts of a command, in order and on signals. */
import { messageOf } from '../shared/errors.js';

/** Stops what a command started. Resolves to the number of accepted requests that were lost. */
export type Stop = () => Promise<number>;

/** The signals that stop the program. Without `--restartable`, SIGHUP means that the terminal was closed. */
export const stopSignals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/**
 * The order in which parts stop: first those that accept work, then those that do it, and the stores last. Parts of a
 * phase stop in parallel.
 */
const phases = ['ingress', 'workers', 'stores'] as const;

/**
 * Registers a started part: the phase in which it stops, and how. A number that `stop` resolves to is the number of
 * lost requests.
 */
export type OnStarted = (phase: (typeof phases)[number], stop: () => Promise<unknown>) => void;

/**
 * Starts the parts of a command, and resolves to a function that stops them. If a part fails to start, the others are
 * stopped and its error is thrown.
 */
export async function startParts(begin: (onStarted: OnStarted) => Promise<void>): Promise<Stop> {
  const stops = new Map(phases.map((phase) => [phase, [] as (() => Promise<unknown>)[]]));
  const stop = async (): Promise<number> => {
    let lost = 0;
    for (const parts of stops.values()) {
      const results = await Promise.all(parts.map((stopPart) => stopPart()));
      for (const result of results) if (typeof result === 'number') lost += result;
    }
    return lost;
  };
  try {
    await begin((phase, stopPart) => {
      stops.get(phase)!.push(stopPart);
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}

/**
 * Stops what a command started. Resolves to the exit status, which is 1 if accepted requests were lost, and never
 * rejects.
 */
export async function stopWithStatus(stop: Stop): Promise<number> {
  try {
    return (await stop()) === 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`Could not stop cleanly: ${messageOf(error)}\n`);
    return 1;
  }
}

/**
 * Catches the signals that stop the program; a second one ends it immediately. Call the returned function with
 * the program's stop function once it has started.
 */
export function catchSignals(): (stop: () => Promise<number>) => void {
  let signals = 0;
  let stop: (() => Promise<number>) | undefined;
  const stopOnce = (): void => void stop?.().then((status) => process.exit(status));
  for (const signal of stopSignals) {
    process.on(signal, () => {
      signals += 1;
      if (signals > 1) process.exit(1);
      stopOnce();
    });
  }
  return (stopStarted) => {
    stop = stopStarted;
    if (signals > 0) stopOnce();
  };
}
