import { readdirSync, readFileSync } from 'node:fs';

/** Ticks per second of the times in `/proc`: `getconf CLK_TCK` is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

/** What a process has used of the processors since it started, its threads included, in seconds. Linux alone tells. */
export function cpuSecondsOf(pid: number): number {
  // The name, in parentheses, may hold spaces; `utime` and `stime` are fields 14 and 15: see proc(5).
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/**
 * How long the threads that a process has now have run, in seconds: to the nanosecond, where `cpuSecondsOf` counts
 * ticks.
 */
export function runningSecondsOf(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  return (
    readdirSync(tasks).reduce(
      (sum, task) => sum + Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ')[0]),
      0,
    ) / 1e9
  );
}

/**
 * What a process holds of the memory, and the most that it has held, in bytes; 0 of one that has ended and waits for
 * its status to be read.
 */
export function residentBytesOf(pid: number): { readonly now: number; readonly most: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const read = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0) * 1024;
  return { now: read('VmRSS'), most: read('VmHWM') };
}
