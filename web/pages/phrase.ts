/** Sentences with times in them: text for a title, and parts of which the template marks the times. */

/** A time, as people and as machines read it. */
export interface Time {
  readonly iso: string;
  readonly text: string;
}

/** What a template loops over. */
export type Phrase = readonly (string | Time)[];

/** Makes a phrase of a template: of text, times and other phrases. */
export function phrase(texts: TemplateStringsArray, ...values: readonly (string | Time | Phrase)[]): Phrase {
  return texts
    .flatMap((text, at) => [text, values[at] ?? ''])
    .flat()
    .filter((part) => part !== '');
}

/** The same as text alone. */
export function textOf(words: Phrase): string {
  return words.map((part) => (typeof part === 'string' ? part : part.text)).join('');
}
