package nearcache

// GatherFor is how long a link that is due waits for others.
const GatherFor = gatherFor
