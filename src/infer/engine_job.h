#pragma once
/// One answer on its way, and the adapter that it is computed with. Internal to this module.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "infer/kept_prefixes.h"
#include "infer/lane_memory.h"
#include "infer/text_stream.h"

namespace tailor {

struct EngineAdapter {
  AdapterId id = 0;
  llama_adapter_lora* lora = nullptr;
  SequenceBytes soft;         // virtual tokens as a sequence; null: none
  SequenceBytes soft_beyond;  // the same by the rotary factors of long texts; null: the model has one set of factors
  std::size_t soft_tokens = 0;
  int users = 0;         // answers that wait or run
  bool removed = false;  // goes with its last user
};

struct EngineJob {
  std::int64_t id = 0;
  std::shared_ptr<const EngineRequest> request;
  int choice = 0;
  std::shared_ptr<AnswerListener> listener;
  std::shared_ptr<EngineTicket> ticket;
  EngineAdapter* adapter = nullptr;
  std::string space;   // of beginnings: the adapter's id, a slash, and the request's own
  bool alone = false;  // computed by the lane that computes one at a time
  int max_tokens = 0;
  std::size_t promised_cells = 0;      // of a lane, when it was taken in
  std::uint64_t work = 0, worked = 0;  // tokens as the queue accounts them, and what of them is done
  SteadyTime submitted, begun, first_token;

  TokenList tokens;  // prompt and answer so far
  std::optional<Sampler> sampler;
  TextStream text;
  bool told_prompt = false;
  std::vector<SampledToken> prompt_logprobs;

  // In a lane:
  bool begun_here = false;
  LaneSequence sequence;
  std::size_t computed = 0;  // of the tokens, in the sequence; its virtual tokens come before them
  std::size_t cached = 0;    // of the prompt, not computed

  // Of LaneBeginnings:
  std::int64_t entry = -1;    // of the sequence; -1: others may not begin with it
  std::int64_t awaited = -1;  // entry of this lane whose first `awaited_tokens` are waited for
  std::size_t awaited_tokens = 0;
  bool importing = false;  // bytes are on their way from another lane
  bool beyond = false;     // computed by the rotary factors of long texts

  bool waits() const { return importing || awaited >= 0; }
  std::size_t prompt_size() const { return request->prompt.size(); }
  /// Whether log p of the token after this one of the prompt is asked for.
  bool scored(std::size_t at) const {
    return request->prompt_logprobs >= 0 && at + 1 >= first_scored() && at + 1 < prompt_size();
  }
  /// The first token whose log p may be asked for: there is none before the first of all.
  std::size_t first_scored() const { return std::max<std::size_t>(1, request->logprobs_from); }
  std::size_t answer_size() const { return tokens.size() - prompt_size(); }
};

/// Why the answer ends before its end at this time; empty: it does not.
std::optional<Error> expiry(const EngineJob& job, SteadyTime at);

}  // namespace tailor
