/** A handler as the compiler leaves it, with a source map. Loaded and called by warm-up.mjs, and by nobody else. */
export default async function handler(request, context) {
  const { searchParams } = new URL(request.url);
  request.headers.get('host');
  return new Response(`${searchParams.get('a')}${context.callId}`, { headers: { 'x-y': 'z' } });
}
//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbIjxzdGRpbj4iXSwibWFwcGluZ3MiOiJBQUFBIiwibmFtZXMiOltdfQ==
