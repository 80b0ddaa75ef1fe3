#pragma once
/// Constrained decoding: at each step the tokens after which the text can still become one that a schema, a regular
/// expression, a list of choices or a grammar allows. XGrammar does the matching (Dong et al., XGrammar,
/// arXiv:2411.15100); what it gets is written by infer/grammar.h, so that nothing is allowed which was not understood.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "model/tokenizer.h"

namespace tailor {

struct ConstraintSpec {
  enum class Kind : std::uint8_t {
    kJsonSchema,  // `schema`: infer/schema_grammar.h
    kJsonObject,  // any JSON object
    kChoices,     // one of `choices`, byte for byte; one may begin another
    kRegex,       // `text`, from the first to the last character: infer/regex_grammar.h
    kGrammar,     // `text`: infer/grammar_text.h
  };
  Kind kind = Kind::kJsonObject;
  Json schema;
  std::string text;
  std::vector<std::string> choices;  // 1 to 10,000, none empty, UTF-8 without U+0000, 256 KiB in all
  std::string where;                 // what to call it in errors; empty: "response_format.json_schema.schema" and so on
};

/// Compiled for a vocabulary. Shared between requests and threads.
class Constraint {
 public:
  ~Constraint();
  /// Memory, as the library estimates it; grows while texts meet states that none met before.
  std::size_t bytes() const;

 private:
  friend class ConstraintCompiler;
  friend class ConstraintState;
  struct Impl;
  explicit Constraint(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

struct ConstraintOptions {
  std::size_t cache_bytes = std::size_t{256} << 20;  // compiled grammars that are kept; the one in use last goes last
};

/// Compiles specifications for one vocabulary and keeps the results. Safe to share between threads: two that ask for
/// the same grammar compile it once. The tokenizer is read by make() alone.
class ConstraintCompiler {
 public:
  /// Errors: a vocabulary without a token that ends a text.
  static Result<ConstraintCompiler> make(const Tokenizer& tokenizer, const ConstraintOptions& options = {});
  ConstraintCompiler(ConstraintCompiler&&) noexcept;
  ConstraintCompiler& operator=(ConstraintCompiler&&) noexcept;
  ~ConstraintCompiler();

  /// Errors name what is not enforced and where. Cheap where the same was asked before.
  Result<std::shared_ptr<const Constraint>> compile(const ConstraintSpec& spec);

  std::size_t vocabulary_size() const;
  std::size_t mask_words() const;  // of 32 tokens
  std::size_t cached() const;      // grammars
  std::size_t cached_bytes() const;

 private:
  struct Impl;
  explicit ConstraintCompiler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Where one generated text stands. A value: a copy goes on by itself. One thread at a time an object.
///
/// The text is the tokens' bytes one after the other (Tokenizer::token_bytes), from the first generated token on.
class ConstraintState {
 public:
  explicit ConstraintState(std::shared_ptr<const Constraint> constraint);
  ConstraintState(const ConstraintState& other);
  ConstraintState& operator=(const ConstraintState& other);
  ConstraintState(ConstraintState&&) noexcept;
  ConstraintState& operator=(ConstraintState&&) noexcept;
  ~ConstraintState();

  /// Sets the bit of each token that may come next, token i in bit i % 32 of word i / 32. Tokens that end a text are
  /// among them exactly when the text may end here; other control tokens never are.
  /// Errors: another number of words than mask_words(); the text has ended; no token fits (a vocabulary without the
  /// bytes that the grammar demands); the calls of this state took more than
  /// 2 s of processor time and 5 ms for each (a written grammar that is very ambiguous).
  Status fill_mask(std::span<std::uint32_t> bits);
  /// /// Errors: a token that the mask does not hold, after which the state is as it was; too much time, as above.
  Status accept(std::int32_t token);
  /// A token that ends a text was accepted.
  bool finished() const;
  /// The text may end here.
  bool may_end() const;
  /// The bytes that must come next, whatever is chosen; empty: there is a choice, or the text may end. Does not move.
  std::string forced();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
