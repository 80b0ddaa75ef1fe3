#pragma once
/// Log-probabilities of given answers after prompts:  log p(answer | prompt) = sum_t log p(answer_t | prompt,
/// answer_<t).
///
/// What all prompts begin with is computed once, a prompt's own tokens once, and the answers as a tree after each. The
/// tree is gone through from its likely side: a probability only falls along a branch, so a beginning that is far less
/// likely than the best whole answer need not be gone on with.

#include <cstdint>
#include <span>
#include <vector>

#include "tune/decoder.h"

namespace tailor::tune::decoder {

/// Nats below the best answer from which on answers are not told apart: in a softmax over the answers a hundred of
/// them move no probability by more than 1e-4.
inline constexpr double kUnlikely = 14;

/// [prompts, answers], exact up to rounding but for answers that are kUnlikely below the prompt's best one: those get
/// the log-probability of a beginning of theirs, which is kUnlikely below as well. The answer `exact`[prompt] is
/// exact anyway (-1 or no such list: none). Answers may begin alike, be equal or be beginnings of others; none is
/// empty, nor is a prompt.
std::vector<float> score_answers(Decoder& decoder, std::span<const std::vector<std::int32_t>> prompts,
                                 std::span<const std::span<const std::int32_t>> answers,
                                 std::span<const std::int32_t> exact);

}  // namespace tailor::tune::decoder
