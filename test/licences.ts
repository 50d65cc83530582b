/** The list of the licences of all that is installed with the package: `npm run licences` writes docs/licences.md. */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** A package that is installed with this one, as the lockfile has it. */
export interface Dependency {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await writeFile('docs/licences.md', licencesPage(await readDependencies()));

/** What `npm install --omit=dev` installs, for any platform, by name and version. */
export async function readDependencies(): Promise<Dependency[]> {
  const { packages } = JSON.parse(await readFile('package-lock.json', 'utf8')) as {
    packages: Record<string, { version: string; dev?: boolean; devOptional?: boolean; license?: string }>;
  };
  return Object.entries(packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && dev !== true && devOptional !== true)
    .map(([path, { version, license }]) => ({
      name: path.replace(/^.*node_modules\//, ''),
      version,
      licence: license ?? 'unknown',
    }))
    .sort((one, other) => ((one.name === other.name ? one.version < other.version : one.name < other.name) ? -1 : 1));
}

/** The page as it has to stand in docs/licences.md. */
export function licencesPage(dependencies: readonly Dependency[]): string {
  const rows = new Set(dependencies.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence} |`));
  return [
    '# Licences of what is installed with the package',
    '',
    'Made of `package-lock.json` by `npm run licences`; a test holds it to that file, and refuses a licence that is unknown or asks for more than a notice.',
    'Each package carries its own text.',
    '',
    '| package | version | licence |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}
