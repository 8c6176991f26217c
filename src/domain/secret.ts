/** What a secret may be called, and how a function asks for one. Pure. */
import { z } from 'zod';

export const secretLimits = {
  secretNameCharsMax: 128,
  secretBytesMax: 65_536,
  /** In one definition. */
  secretsMax: 100,
} as const;

const secretNameRule = `use 1 to ${secretLimits.secretNameCharsMax} letters, digits and _, not starting with a digit or FNWAY_`;

export const secretNameSchema = z
  .string()
  .regex(/^(?!FNWAY_)[A-Za-z_][A-Za-z0-9_]{0,127}$/, secretNameRule);

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
 * All forms in which a value could be told again: itself, its lines (output is read line by line), and as it stands in JSON
 * and in addresses. Longest first, so that no rest of one is left beside another.
 */
export function formsOf(value: string): string[] {
  const lines = value.split(/\r?\n/).map(line => line.trim());
  const plain = new Set([value, value.trim(), ...lines]);
  const forms = new Set<string>();
  for (const form of plain) {
    forms.add(form);
    forms.add(JSON.stringify(form).slice(1, -1));
    forms.add(encodeURIComponent(form));
  }
  return [...forms]
    .filter(form => form.length >= maskedCharsMin)
    .sort((a, b) => b.length - a.length);
}
