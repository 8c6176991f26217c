/** What a secret may be called, and how a function asks for one. Pure. */
import { z } from 'zod';

export const secretLimits = {
  secretNameCharsMax: 128,
  secretBytesMax: 65_536,
  /** In one definition. */
  secretsMax: 100,
} as const;

const secretNameRule = `use 1 to ${secretLimits.secretNameCharsMax} letters, digits and _, not starting with a digit or FNWAY_, and not __proto__`;

export const secretNameSchema = z
  .string()
  .regex(/^(?!FNWAY_|__proto__$)[A-Za-z_][A-Za-z0-9_]{0,127}$/, secretNameRule);

/** Of `secrets` in a definition: a name, or a name and where the value is to be. */
export const secretUseSchema = z.union([
  secretNameSchema.transform(name => ({ name, as: 'env' as const })),
  z.strictObject({ name: secretNameSchema, as: z.enum(['env', 'file']).default('env') }),
]);

export interface SecretUse {
  name: string;
  /** `env`: a variable of that name, of instances that start. `file`: a file, named by the variable NAME_FILE. */
  as: 'env' | 'file';
}

/** The variable that names the file of a secret. */
export function fileVariable(name: string): string {
  return `${name}_FILE`;
}

/** Shorter values are no secrets: hiding them would hide half of every log. */
export const maskedCharsMin = 4;

/**
 * All forms in which a value could be told again: itself, its lines (output is read line by line), and as it stands in JSON,
 * in addresses and in forms. Longest first, so that no rest of one is left beside another.
 */
export function formsOf(value: string): string[] {
  const lines = value.split(/\r?\n/).map(line => line.trim());
  const plain = new Set([value, value.trim(), ...lines]);
  const forms = new Set<string>();
  for (const form of plain) {
    forms.add(form);
    const json = JSON.stringify(form).slice(1, -1);
    forms.add(json);
    // As Python writes it, unless it is told otherwise.
    forms.add(
      json.replace(
        /[^\x20-\x7e]/g,
        unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
      ),
    );
    // A half of a pair of units has no address.
    forms.add(encodeURIComponent(form.toWellFormed()));
    forms.add(encodeURI(form.toWellFormed()));
    forms.add(new URLSearchParams({ '': form }).toString().slice(1));
  }
  return [...forms]
    .filter(form => form.length >= maskedCharsMin)
    .sort((a, b) => b.length - a.length);
}

/** What to do where a secret is missing. */
export function setSecretRemedy(name: string): string {
  return `Set it with \`fnway secrets set ${name}\`.`;
}

/** Whether instances of a function hold the value of a secret, so that a new one reaches only new instances. */
export function hasAsVariable(
  spec: { secrets?: SecretUse[] | undefined },
  wanted: string,
): boolean {
  return spec.secrets?.some(({ name, as }) => name === wanted && as === 'env') ?? false;
}
