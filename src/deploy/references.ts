/** What resources name: functions and other resources of their namespace, which must be there. */
import { resourceRules } from '../domain/resource.ts';
import { GatewayError } from '../errors.ts';
import type { Registry } from './registry.ts';
import type { Check, Resources } from './resources.ts';

/** Throws DEFINITION_INVALID for what is missing. */
export function refuseMissing({
  registry,
  resources,
}: {
  registry: Pick<Registry, 'get'>;
  resources: Pick<Resources, 'get'>;
}): Check {
  return ({ kind, namespace, definition }) => {
    const issues = resourceRules[kind]
      .names(definition as never)
      .filter(({ kind, name }) =>
        kind === 'function'
          ? registry.get(namespace, name) === undefined
          : resources.get(kind, namespace, name) === undefined,
      )
      .map(({ kind, name, key }) => ({
        path: key,
        message: `there is no ${kind} ${name} in the namespace ${namespace}`,
      }));
    const [first] = issues;
    if (first === undefined) return;
    const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : '';
    const detail = `${first.path}: ${first.message}${more}`;
    throw new GatewayError('DEFINITION_INVALID', detail, { issues });
  };
}
