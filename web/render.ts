/** Pug templates and static assets. */
import { createHash } from 'node:crypto';
import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import views from '@ladjs/koa-views';
import type { Middleware } from 'koa';

/** A file whose URL contains its hash, so that it can be cached indefinitely. */
export interface Asset {
  readonly url: string;
  readonly type: string;
  readonly body: string;
}

/** The assets of the page. */
export interface Assets {
  readonly stylesheet: Asset;
  readonly icon: Asset;
  /** Idiomorph and `client/live.ts`, which uses it. */
  readonly script: Asset;
  /** Hash of the style sheet for the content security policy of charts that include it. */
  readonly styleHash: string;
}

const viewsDirectory = fileURLToPath(new URL('../../views', import.meta.url));
const publicDirectory = fileURLToPath(new URL('../public', import.meta.url));
const stylesheetFile = `${publicDirectory}/main.css`;

/** Whether `npm run dev` runs it: templates and assets are read again when they change. */
const isDevelopment = process.env['NODE_ENV'] === 'development';

/** Adds `render(view, locals)` to each context. Templates are compiled once. */
export function renderViews(): Middleware {
  return views(viewsDirectory, { extension: 'pug', options: { cache: !isDevelopment } });
}

/** Reads the compiled style sheet, the icon and the scripts. Throws if the style sheet has not been built. */
export async function loadAssets(): Promise<Assets> {
  const assets = await readAssets();
  if (!isDevelopment) return assets;
  for (const directory of [viewsDirectory, publicDirectory]) {
    watch(directory, { recursive: true }, () => {
      readAssets().then(
        (changed) => Object.assign(assets, changed), // in place: routes hold this object
        () => undefined, // half written: another change follows
      );
    });
  }
  return assets;
}

async function readAssets(): Promise<Assets> {
  const style = await readFile(stylesheetFile, 'utf8').catch((cause: unknown) => {
    throw new Error(`Cannot read the style sheet ${stylesheetFile}. Run "npm run build" to compile it.`, {
      cause,
    });
  });
  const icon = await readFile(`${viewsDirectory}/icon.svg`, 'utf8');
  const scripts = await Promise.all(
    [new URL(import.meta.resolve('idiomorph/dist/idiomorph.min.js')), `${publicDirectory}/live.js`].map((file) =>
      readFile(file, 'utf8'),
    ),
  );
  // An open page reloads when the URL of its script has changed.
  if (isDevelopment) scripts.push(`// ${new Date().toISOString()}`);
  return {
    stylesheet: asset('main', 'css', 'text/css; charset=utf-8', style.trim()),
    icon: asset('icon', 'svg', 'image/svg+xml', icon),
    script: asset('live', 'js', 'text/javascript; charset=utf-8', scripts.join('\n')),
    styleHash: `'sha256-${createHash('sha256').update(style.trim()).digest('base64')}'`,
  };
}

function asset(name: string, extension: string, type: string, body: string): Asset {
  const hash = createHash('sha256').update(body).digest('base64url').slice(0, 12);
  return { url: `/assets/${name}-${hash}.${extension}`, type, body };
}
