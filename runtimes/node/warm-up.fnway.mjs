/** Imported by warm-up.mjs for being imported: with what a compiled handler begins with, and a source map. */
import { createRequire } from 'node:module';

export const require = createRequire(import.meta.url);
//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbIjxzdGRpbj4iXSwibWFwcGluZ3MiOiJBQUFBIiwibmFtZXMiOltdfQ==
