import test, { type ExecutionContext } from 'ava';
import { chromiumOnPath } from './launch-chromium.js';
import { noteMissingPart } from './missing-part.js';

/**
 * Declares a test that needs Chromium, one after the other; where there is none it is skipped, and the summary of the
 * tests says how to get it.
 */
export const testWithChromium: (title: string, run: (t: ExecutionContext) => Promise<void>) => void = chooseTest();

function chooseTest(): typeof testWithChromium {
  if (chromiumOnPath() !== undefined) return test.serial;
  noteMissingPart('tests with Chromium, which is not on the PATH. Debian has it: apt-get install chromium.');
  return test.skip;
}
