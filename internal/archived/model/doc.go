// Package model is the protocol between Redis and the archive, as a state machine of one code, and
// the tests that go through everything that may happen to it. It holds no code that runs in
// production: it is where a change of the protocol is tried before it is built.
//
// Its decision: "Redis evicts only what PostgreSQL has" is too easily nearly true to be believed.
// The tests visit every interleaving of a few creates, changes, deletes, reads and archivers with
// evictions, crashes, a lost Redis and a failover. And since a check that cannot fail proves
// nothing, each safeguard is taken away in turn, and the invariant that then breaks is named. `go
// test -v` prints the shortest way to each.
//
// # What is where
//
//   - link:<code> in Redis holds the record. A record has a number: 0 when the link is created,
//     which is left out of the record, and one more with each change. So no record of a link ever
//     comes back, not even by changing it back.
//   - pass:{link:<code>} in Redis, in the same slot, holds a random pass for 10 s. While a pass is
//     there, nobody has written the link since it was issued.
//   - The outbox, a stream in Redis, holds marks: codes whose links are to be archived.
//   - A row of PostgreSQL holds the record and its number.
//
// Redis may evict what has a time to live. A record has none when it is written, ten years (a
// tombstone: what is left of its grace) once it is archived, and an hour when it was restored.
//
// # Writing
//
// A minted code is created by SET NX GET, as without an archive. The archive is not asked, and no
// pass is touched: nobody else has the code. Its mark goes out in the same trip, before or after;
// both are answered before the create is acknowledged.
//
// A chosen or imported code is created in three steps; when the last finds that the pass is gone,
// from the first again:
//
//  1. Script miss: if there is a record, return it (409, or success if it is equal). Otherwise
//     issue a pass, or share the one that is there, and return it.
//
//  2. Look the code up in the archive. A row: 409 (or success if equal). A tombstone older than the
//     grace is free: the new record's number is one more than its. No answer: 503.
//
//  3. Script create: if there is a record, return it. If the pass is not the one of step 1, say so.
//     Otherwise SET the record without a time to live and DEL the pass. Then XADD the mark; only
//     then it is acknowledged.
//
// A change or a delete reads the record (restoring it first if it is only in the archive). Then:
//
//  1. Script change: if the record is still the one that was read, SET the new one, its number one
//     more, without a time to live, a tombstone too, and DEL the pass. If the new one is there
//     already, its first try was not heard of.
//
//  2. XADD the mark, after the change: in the same pipeline, on the same connection; in a Cluster
//     once the change is answered. Also when the script found its first try. Only then the change
//     is acknowledged.
//
// # Reading
//
//  1. GET the record. There: done.
//
//  2. Script miss, as above. A record after all: done.
//
//  3. Ask the archive. No row, or a tombstone older than the grace: 404. No answer: 503. A query
//     may be shared by all misses that had their passes before it was sent, and by none that came
//     later. While there are two homes, ask the old one, then the new one, and take the higher
//     number: what has left the old home since is in the new one.
//
//  4. Script restore: if there is no record and the pass is still the one of step 2, SET the row's
//     record for an hour. The pass stays. The reader may be answered before, from the row. A change
//     goes back to step 1.
//
// # Archiving
//
// Any archiver may take any mark, also one that another works on still. For each:
//
//  1. GET the record. There is none: the mark is tried again for 5 s, longer than a create may
//     take, and then deleted: what was there was archived, or it would be there still.
//
//  2. Upsert, refused unless the number is higher than the row's. Read the rows of what was
//     refused. The same record: go on. Another: step 4.
//
//  3. Script expire: if the record is still the one archived, and has no time to live, set it.
//     Whatever the answer, delete the mark: another record has a mark of its own.
//
//  4. Script settle, which only a Redis that lost writes ever needs. If the record is still the one
//     that was read and has a time to live, or number 0 where the row's is higher, it is older than
//     the row: SET the row's record for an hour. Without a time to live it was changed since: SET
//     it with the row's number plus one, still without one. In both cases DEL the pass and announce
//     the change. Then, whatever was there, go to step 1. Minted records that differ and both have
//     number 0 are a collision: they are left as they are, and raise an alarm.
//
// Adding a shard: first everyone who reads learns that there are two homes, while all rows are
// written to the old ones. Then each shard learns how many there are: from then on it refuses rows
// that have their home elsewhere, and whoever was refused writes to the new homes. Only when all
// shards know it are rows moved: read a row, upsert it at its new home as above, and delete it at its
// old one if it is still the one that was read. What is refused there is older, and is deleted too;
// unless both have number 0 and differ, as two links do that collided: then both stay. When none is
// left, readers may forget the old homes.
//
// The sweep marks records without a time to live that no mark names: of a create or change that
// ended before its mark. After Redis lost writes, by a failover or otherwise, verify marks every
// record that is not as its row.
//
// # Scripts
//
// KEYS are link:<code> and pass:{link:<code>}; what is announced, counts of visits and what a
// change answers are left out.
//
//	-- miss: ARGV are a random pass and 10000
//	local record = redis.call("GET", KEYS[1])
//	if record then return {record, false} end
//	redis.call("SET", KEYS[2], ARGV[1], "NX", "PX", ARGV[2])
//	return {false, redis.call("GET", KEYS[2])}
//
//	-- create: the pass and the record
//	local record = redis.call("GET", KEYS[1])
//	if record then return record end               -- taken, or the first try of this one
//	if redis.call("GET", KEYS[2]) ~= ARGV[1] then return 0 end  -- begin anew
//	redis.call("SET", KEYS[1], ARGV[2])
//	redis.call("DEL", KEYS[2])
//	return 1
//
//	-- change: the record that was read and the new one
//	local record = redis.call("GET", KEYS[1])
//	if record == ARGV[2] then return 1 end
//	if record ~= ARGV[1] then return 0 end
//	redis.call("SET", KEYS[1], ARGV[2])            -- which takes a time to live away
//	redis.call("DEL", KEYS[2])
//	return 1
//
//	-- restore: the pass, the row's record and 3600000
//	if redis.call("GET", KEYS[2]) == ARGV[1] then
//	  redis.call("SET", KEYS[1], ARGV[2], "NX", "PX", ARGV[3])
//	end
//
//	-- expire: the record that was archived, and until when
//	if redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("PTTL", KEYS[1]) == -1 then
//	  redis.call("PEXPIREAT", KEYS[1], ARGV[2])
//	end
//
//	-- settle: the record that was read, the row's, the lifted one ("" if the number of the first is 0
//	-- and the row's is higher), and 3600000
//	if redis.call("GET", KEYS[1]) ~= ARGV[1] then return end
//	if redis.call("PTTL", KEYS[1]) >= 0 or ARGV[3] == "" then
//	  redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[4])
//	else
//	  redis.call("SET", KEYS[1], ARGV[3])
//	end
//	redis.call("DEL", KEYS[2])
//
//	-- upsert, codes in order and each once, or two archivers may wait for each other
//	INSERT INTO links (code, number, record) SELECT … FROM unnest(…) ORDER BY code
//	ON CONFLICT (code) DO UPDATE SET number = excluded.number, record = excluded.record
//	WHERE links.number < excluded.number
//	RETURNING code                                 -- the others were refused: SELECT them
//
// # What holds
//
// While Redis loses nothing, in every state:
//
//   - A record that Redis may evict is the one in PostgreSQL.
//   - Redis, and the archive where Redis has nothing, give the last write. So no update is lost,
//     none is made on a record that was not current, nothing that was deleted comes back, and
//     nothing is missing that is there.
//   - No code is given to a second link.
//   - A read that began after an acknowledgement gives what was acknowledged, or something later.
//   - When nothing is under way, everything is archived and may be evicted, without the sweep if no
//     writer crashed.
//
// When Redis loses everything: what was archived stays, and all of the above holds for it. When it
// fails over to a replica that is behind: what is acknowledged afterwards stays, what the archive
// alone still has is kept unless the link was changed since, and after verify both are the same. An
// archiver that read a record before either and upserts it afterwards may bring back a change that
// Redis lost, over one that was acknowledged since; the two are then at least the same. Where
// nothing verifies, the hour bounds how long readers get a record that is not the row's.
//
// From each state a rest can be reached: nothing marks or settles for ever.
//
// # What was tried instead
//
// Each is a test, which prints the way to what it breaks.
//
//   - A row that refuses lower numbers of marks, instead of records: a mark may be older than the
//     record that is read for it, so that an older record comes with a newer mark.
//   - Records without a number: one that was changed and changed back is taken for the one that was
//     archived.
//   - SET NX alone to restore: it brings back what was read before a change, if the change was
//     archived and evicted meanwhile. A second look at the row afterwards, changes that look at the
//     row first, and both, only make it rarer: changes on an old record are lost for good all the
//     same.
//   - A lock on the row until Redis has the record closes it, as long as no lock ends while a
//     command is on its way. It also costs a write in PostgreSQL for each cold read.
//   - A pass that is taken after a miss, but not in the step that sees it: the change comes
//     between.
//   - A look-up before SET NX to fence a chosen code: another may create the link, and Redis evict
//     it, between the two.
//   - A reservation in the archive: whoever crashes leaves a code that nobody has and nobody gets,
//     and to take reservations over is to guess who is dead.
//
// # What it does not stand
//
// These are tests, too. A code that is imported in the very moment in which it is minted may be
// given twice: of codes that look minted, import only those whose time is not within a minute of
// now (those that are ahead stay without a time to live). And where a create of a minted code is
// sent a second time, and its first try arrives when the link has been changed, archived and
// evicted, readers and changes get the link as it was created, until a sweep settles it.
//
// # What is left out
//
// Near caches, which add their own bound to each read. Reads while Redis is away, which the archive
// answers: they are older by what is not archived yet. Visits of links with max_visits, which have
// no time to live while they live. Links that expire: the archive takes them for tombstones once
// they do. Minted codes that collide. Other commands that are carried out twice: scripts compare
// what they find. Several codes in an entry or a statement. Time: events come in any order, but a
// create takes less than the 5 s of a mark without a link, and nothing outlives the grace.
package model
