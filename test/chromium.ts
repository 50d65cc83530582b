import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { chromium, type Browser } from 'playwright-core';

/** Declares a test that needs Chromium, one after the other; where there is none it is skipped, and a line says how to get it. */
export const testWithChromium: (title: string, run: (t: ExecutionContext) => Promise<void>) => void = chooseTest();

/** Starts the `chromium` on the PATH without a window. The caller closes it. */
export function startChromium(): Promise<Browser> {
  // A container has neither the kernel's sandbox for root nor a /dev/shm to speak of.
  return chromium.launch({ executablePath: onPath()!, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}

function chooseTest(): typeof testWithChromium {
  if (onPath() !== undefined) return test.serial;
  process.stderr.write('Tests with Chromium are skipped: chromium is not on the PATH. Debian has it: apt-get install chromium.\n');
  return test.skip;
}

function onPath(): string | undefined {
  return (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'chromium')).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
