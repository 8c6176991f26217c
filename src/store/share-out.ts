/** Which lane is served how often, when there is room for so many jobs: in turn, whoever has waited longest first. Pure. */

export interface WaitingLane {
  id: string;
  ready: number;
  /** How many more of it may run. */
  room: number;
}

/** `lanes`, those that were served longest ago first. Answers with lanes in the order of service, repeated. */
export function shareOut(lanes: readonly WaitingLane[], limit: number): string[] {
  const served: string[] = [];
  let turn = lanes
    .map(({ id, ready, room }) => ({ id, left: Math.min(ready, room) }))
    .filter(({ left }) => left > 0);
  while (turn.length > 0 && served.length < limit) {
    for (const lane of turn) {
      if (served.length === limit) break;
      served.push(lane.id);
      lane.left--;
    }
    turn = turn.filter(({ left }) => left > 0);
  }
  return served;
}
