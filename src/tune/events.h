#pragma once
/// What a job says while it runs: one JSON object a line, docs/TUNE_JOB.md, "Events".

#include <functional>
#include <nlohmann/json_fwd.hpp>

namespace tailor::tune {

/// Gets each event once, in order, from the training thread. tailor-tune writes it to standard output and flushes.
using EventSink = std::function<void(const nlohmann::ordered_json&)>;

}  // namespace tailor::tune
