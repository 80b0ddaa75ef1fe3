#pragma once
/// What looks at a request's texts before anything is computed, and at an answer's before it is sent: the seam where
/// guards (personal data, policies, moderation) come in.

#include <memory>
#include <string>
#include <string_view>

#include "serve/api_context.h"

namespace tailor {

/// One answer on its way to a client, piece by piece. Threads: one at a time.
class AnswerFilter {
 public:
  struct Passed {
    std::string text;   // may be sent now; what is held back is given with a later piece
    bool ends = false;  // the answer ends here, with the finish_reason "content_filter"
  };
  virtual ~AnswerFilter() = default;
  virtual Passed pass(std::string_view piece) = 0;
  virtual Passed finish() = 0;  ///< the answer has ended: what was held back
};

/// Threads: called from any, concurrently.
class Guard {
 public:
  virtual ~Guard() = default;
  /// Before anything is computed; may change the request ("messages", "prompt", "input", …), as to mask what no model
  /// shall see. An error is the answer.
  virtual ApiFailure check(const ApiCall& call, const ServedModel& model, Json& body) = 0;
  /// For one answer in text; null: all passes. Answers that are filtered are told without log-probabilities of their
  /// tokens, which would tell what was held back.
  virtual std::unique_ptr<AnswerFilter> filter(const ApiCall& call, const ServedModel& model) = 0;
};

}  // namespace tailor
