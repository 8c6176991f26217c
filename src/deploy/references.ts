/** What resources name: functions and other resources of their namespace, which must be there. */
import type { SubscriptionDefinition } from '../../client/api.ts';
import { type Named, resourceRules } from '../domain/resource.ts';
import { GatewayError } from '../errors.ts';
import type { Registry } from './registry.ts';
import type { Check, Resources } from './resources.ts';
import type { Secrets } from './secrets.ts';

/** Throws DEFINITION_INVALID for what is missing. */
export function refuseMissing({
  registry,
  resources,
  secrets,
}: {
  registry: Pick<Registry, 'get'>;
  resources: Pick<Resources, 'get' | 'all'>;
  secrets: Pick<Secrets, 'has'>;
}): Check {
  function isThere(kind: Named, namespace: string, name: string): boolean {
    if (kind === 'function') return registry.get(namespace, name) !== undefined;
    if (kind === 'secret') return secrets.has(namespace, name);
    return resources.get(kind, namespace, name) !== undefined;
  }

  return ({ kind, namespace, name, definition }) => {
    const issues = resourceRules[kind]
      .names(definition as never)
      .filter(({ kind, name }) => !isThere(kind, namespace, name))
      .map(({ kind, name, key }) => ({
        path: key,
        message: `there is no ${kind} ${name} in the namespace ${namespace}`,
      }));
    const loop =
      kind === 'subscription' && deadLetterLoop(resources, { namespace, name, definition });
    if (loop) issues.push({ path: 'deadLetter', message: `what is dead would come back: ${loop}` });
    const [first] = issues;
    if (first === undefined) return;
    const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : '';
    const detail = `${first.path}: ${first.message}${more}`;
    throw new GatewayError('DEFINITION_INVALID', detail, { issues });
  };
}

/** By way of subscriptions of dead-letter topics, as `orders → failed → orders`; undefined where it ends. */
function deadLetterLoop(
  resources: Pick<Resources, 'all'>,
  given: { namespace: string; name: string; definition: unknown },
): string | undefined {
  const { topic, deadLetter } = given.definition as SubscriptionDefinition;
  if (deadLetter === undefined) return undefined;
  const others = [...resources.all('subscription')].filter(
    ({ row }) => row.namespace === given.namespace && row.name !== given.name,
  );
  const nextOf = (from: string) =>
    others.flatMap(({ definition }) =>
      definition.topic === from && definition.deadLetter !== undefined
        ? [definition.deadLetter]
        : [],
    );
  const seen = new Set<string>();
  for (let paths = [[deadLetter]]; paths.length > 0; ) {
    const found = paths.find(path => path.at(-1) === topic);
    if (found !== undefined) return [topic, ...found].join(' → ');
    paths = paths.flatMap(path =>
      nextOf(path.at(-1)!)
        .filter(next => next === topic || !seen.has(next))
        .map(next => {
          seen.add(next);
          return [...path, next];
        }),
    );
  }
  return undefined;
}
