#pragma once
/// What the tests of constraints share: does a constraint allow a text, and texts drawn from one at random.

#include <gtest/gtest.h>

#include <bit>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "infer/constraint.h"
#include "model/test_support.h"

namespace tailor::testing {

inline const Tokenizer& smollm_tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(smollm_file()).value();
  return kTokenizer;
}

inline ConstraintCompiler& smollm_compiler() {
  static ConstraintCompiler kCompiler = ConstraintCompiler::make(smollm_tokenizer()).value();
  return kCompiler;
}

inline ConstraintSpec schema_spec(Json schema) {
  return {.kind = ConstraintSpec::Kind::kJsonSchema, .schema = std::move(schema)};
}
inline ConstraintSpec text_spec(ConstraintSpec::Kind kind, std::string text) {
  return {.kind = kind, .text = std::move(text)};
}

inline bool in_mask(std::span<const std::uint32_t> mask, std::int32_t token) {
  return (mask[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

/// Takes the text's own tokens one by one, each looked up in the mask first.
inline bool allows(const std::shared_ptr<const Constraint>& constraint, std::string_view text) {
  ConstraintState state(constraint);
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words());
  for (const std::int32_t token : smollm_tokenizer().encode(text, false)) {
    state.fill_mask(mask).value();
    const bool may = in_mask(mask, token);
    const Status taken = state.accept(token);
    EXPECT_EQ(taken.has_value(), may) << "mask and accept() disagree on token " << token << " in " << text;
    if (!taken) return false;
  }
  state.fill_mask(mask).value();
  EXPECT_EQ(in_mask(mask, smollm_tokenizer().eos()), state.may_end()) << text;
  return state.may_end();
}

inline std::vector<std::int32_t> single_tokens(std::string_view characters) {
  std::vector<std::int32_t> out;
  for (const char c : characters) {
    const auto ids = smollm_tokenizer().encode(std::string(1, c), false);
    if (ids.size() == 1) out.push_back(ids[0]);
  }
  return out;
}

/// A text whose tokens are drawn from the masks: any of them first, after `patience` tokens such as bring it to its
/// end. Fails the test where a mask is empty or the text does not end.
inline std::string draw(const std::shared_ptr<const Constraint>& constraint, Rng& rng, int patience = 25) {
  static const std::vector<std::int32_t> kClosing = single_tokens("\"}]:01elnu");
  static const std::vector<std::int32_t> kCharacters =
      single_tokens("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-.:@,{}[]\"\\ ");
  ConstraintState state(constraint);
  std::vector<std::uint32_t> mask(smollm_compiler().mask_words());
  std::string text;
  for (int step = 0; step < 5000; ++step) {
    const Status filled = state.fill_mask(mask);
    if (!filled) {
      ADD_FAILURE() << to_string(filled.error()) << "\nafter: " << text;
      return text;
    }
    std::vector<std::int32_t> allowed;
    for (std::size_t word = 0; word < mask.size(); ++word) {
      for (std::uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
        allowed.push_back(static_cast<std::int32_t>(word * 32) + std::countr_zero(bits));
      }
    }
    std::int32_t next = allowed[rng.below(allowed.size())];
    if (step >= patience) {
      // Brackets that close first; now and then any single character, since a pattern may ask for it.
      const auto& preferred = rng.below(8) > 0 ? kClosing : kCharacters;
      const std::size_t from = rng.below(&preferred == &kClosing ? 1 : preferred.size());
      for (std::size_t i = from; i < preferred.size(); ++i) {
        if (!in_mask(mask, preferred[i])) continue;
        next = preferred[i];
        break;
      }
    }
    // Control tokens are many among few when a text may end.
    if (state.may_end() && (step >= patience || rng.below(3) == 0)) return text;
    if (smollm_tokenizer().ends_generation(next)) {
      EXPECT_TRUE(state.may_end());
      return text;
    }
    EXPECT_FALSE(smollm_tokenizer().is_control(next));
    text += smollm_tokenizer().token_bytes(next);
    state.accept(next).value();
  }
  ADD_FAILURE() << "the text does not end: " << text.substr(0, 200);
  return text;
}

}  // namespace tailor::testing
