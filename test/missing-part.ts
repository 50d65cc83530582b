import { appendFileSync } from 'node:fs';

/** Names the file in which test files note what they miss: see `run.ts`. */
export const missingPartsVariable = 'MISSING_PARTS_FILE';

/**
 * Notes what tests are skipped for and how to get it: for the summary of `npm test`, or at once where ava runs by
 * itself.
 */
export function noteMissingPart(reason: string): void {
  const file = process.env[missingPartsVariable];
  if (file === undefined) process.stderr.write(`Skipped: ${reason}\n`);
  else appendFileSync(file, `${reason}\n`);
}
