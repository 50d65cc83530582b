import test, { type ExecutionContext } from 'ava';
import { chromiumOnPath } from './launch-chromium.js';

/** Declares a test that needs Chromium, one after the other; where there is none it is skipped, and a line says how to get it. */
export const testWithChromium: (title: string, run: (t: ExecutionContext) => Promise<void>) => void = chooseTest();

function chooseTest(): typeof testWithChromium {
  if (chromiumOnPath() !== undefined) return test.serial;
  process.stderr.write('Tests with Chromium are skipped: chromium is not on the PATH. Debian has it: apt-get install chromium.\n');
  return test.skip;
}
