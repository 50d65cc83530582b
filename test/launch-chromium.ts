import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';

/** The `chromium` on the PATH; `undefined` when there is none. */
export function chromiumOnPath(): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'chromium'))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Starts the `chromium` on the PATH without a window. Throws when there is none. The caller closes it. */
export function startChromium(): Promise<Browser> {
  const executablePath = chromiumOnPath();
  if (executablePath === undefined)
    throw new Error('chromium is not on the PATH. Debian has it: apt-get install chromium.');
  // A container has neither the kernel's sandbox for root nor a /dev/shm to speak of.
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}
