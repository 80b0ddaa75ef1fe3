#pragma once

namespace tailor {

/// How threads of a parallel region wait for each other: for some microseconds by spinning, then asleep. Only asleep, a
/// step of a small model (hundreds of regions) takes three times as long; only spinning, anything beside other work
/// takes ten times as long. The runtime reads this when it is loaded, hence the second start: call it first in main().
/// What the user set in OMP_WAIT_POLICY=active or GOMP_SPINCOUNT stays. Where it fails the program goes on without it.
void restart_with_short_waits(char** argv);

}  // namespace tailor
