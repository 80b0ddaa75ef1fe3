#include "infer/constraint.h"

#include <fmt/format.h>
#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <iterator>
#include <list>
#include <mutex>
#include <unordered_map>

#include "infer/grammar.h"
#include "infer/grammar_text.h"
#include "infer/regex_grammar.h"
#include "infer/regular_parts.h"
#include "infer/schema_grammar.h"
#include "model/utf8.h"

namespace tailor {
namespace {

constexpr std::size_t kMostChoices = 10'000;
constexpr std::size_t kChoiceBytes = 256 << 10;
constexpr std::size_t kEntryBytes = 4096;  // of what is kept beside a grammar

/// A grammar may be so ambiguous that each step costs more than the one before; the masks of new states cost too.
constexpr double kSecondsFree = 2, kSecondsEach = 0.005;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// The library throws on what it does not take, and where it is wrong itself.
template <typename Call>
auto guarded(std::string_view what, Call&& call) -> Result<decltype(call())> {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, fmt::format("{}: out of memory", what), ""};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal, fmt::format("{}: {}", what, error.what()), ""};
  }
}

std::string name_of(const ConstraintSpec& spec) {
  if (!spec.where.empty()) return spec.where;
  switch (spec.kind) {
    case ConstraintSpec::Kind::kJsonSchema:
      return "response_format.json_schema.schema";
    case ConstraintSpec::Kind::kJsonObject:
      return "response_format";
    case ConstraintSpec::Kind::kChoices:
      return "choices";
    case ConstraintSpec::Kind::kRegex:
      return "regex";
    case ConstraintSpec::Kind::kGrammar:
      return "grammar";
  }
  return "constraint";
}

std::string key_of(const ConstraintSpec& spec) {
  std::string key(1, static_cast<char>('0' + static_cast<int>(spec.kind)));
  switch (spec.kind) {
    case ConstraintSpec::Kind::kJsonSchema:
      return key + dump_json(spec.schema);
    case ConstraintSpec::Kind::kChoices:
      for (const std::string& text : spec.choices) key += fmt::format("{}:{}", text.size(), text);
      return key;
    case ConstraintSpec::Kind::kRegex:
    case ConstraintSpec::Kind::kGrammar:
      return key + spec.text;
    case ConstraintSpec::Kind::kJsonObject:
      break;
  }
  return key;
}

Result<Grammar> choice_grammar(const std::vector<std::string>& choices) {
  const auto bad = [](std::string what) { return Error{ErrorCode::kInvalidArgument, std::move(what), ""}; };
  if (choices.empty() || choices.size() > kMostChoices) {
    return bad(fmt::format("{} choices are given, expected 1 to {}", choices.size(), kMostChoices));
  }
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string& text = choices[i];
    if (text.empty()) return bad(fmt::format("choice {} is empty", i));
    if (!is_valid_utf8(text) || text.find('\0') != std::string::npos)
      return bad(fmt::format("choice {} is not UTF-8, or holds U+0000", i));
    bytes += text.size();
  }
  if (bytes > kChoiceBytes) return bad(fmt::format("the choices are longer than {} KiB", kChoiceBytes >> 10));
  Grammar grammar;
  grammar.define(0, any_text_of(choices));
  return grammar;
}

Result<Grammar> grammar_of(const ConstraintSpec& spec) {
  switch (spec.kind) {
    case ConstraintSpec::Kind::kJsonSchema:
      return schema_grammar(spec.schema, name_of(spec));
    case ConstraintSpec::Kind::kJsonObject:
      return json_object_grammar();
    case ConstraintSpec::Kind::kChoices:
      return choice_grammar(spec.choices);
    case ConstraintSpec::Kind::kRegex: {
      Grammar grammar;
      TAILOR_TRY(GrammarExpr whole, add_regex(grammar, spec.text));
      grammar.define(0, std::move(whole));
      return grammar;
    }
    case ConstraintSpec::Kind::kGrammar: {
      TAILOR_TRY(const Grammar written, read_grammar(spec.text));
      return with_regular_parts(written);
    }
  }
  return Error{ErrorCode::kInternal, "unknown kind of constraint", ""};
}

}  // namespace

struct Constraint::Impl {
  xgrammar::CompiledGrammar grammar;
};

Constraint::Constraint(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Constraint::~Constraint() = default;
std::size_t Constraint::bytes() const {
  return impl_->grammar.MemorySizeBytes();
}

/// The latest used first. An entry without a value is being compiled by some thread.
struct ConstraintCompiler::Impl {
  using Value = Result<std::shared_ptr<const Constraint>>;
  struct Entry {
    std::string key;
    std::shared_ptr<const Constraint> value;
    std::size_t bytes = 0;
  };
  using Place = std::list<Entry>::iterator;

  Impl(const xgrammar::TokenizerInfo& info, const ConstraintOptions& options)
      // Masks are made when a text first needs them, and those of equal rules once for all grammars: a third of what is
      // given here is for these.
      : compiler(info, 1, true, static_cast<std::int64_t>(options.cache_bytes / 4 * 3), true),
        most_bytes(options.cache_bytes / 4 * 3) {}

  Value fresh(const ConstraintSpec& spec) {
    auto grammar = grammar_of(spec);
    auto text = grammar ? grammar->print() : Result<std::string>(grammar.error());
    if (!text) {
      Error error = text.error();
      const std::string name = name_of(spec);
      if (!error.message.starts_with(name)) error.message = fmt::format("{}: {}", name, error.message);
      return error;
    }
    auto compiled = std::make_unique<const Constraint::Impl>(Constraint::Impl{compiler.CompileGrammar(*text)});
    return std::shared_ptr<const Constraint>(new Constraint(std::move(compiled)));
  }

  /// With `guard` held: what `place` takes now, since its masks grow; then drops what was not used for longest.
  void weigh(Place place) {
    bytes -= place->bytes;
    place->bytes = kEntryBytes + place->key.size() + place->value->bytes();
    bytes += place->bytes;
    for (auto it = std::prev(entries.end()); it != entries.begin() && bytes > most_bytes;) {
      const auto before = std::prev(it);
      if (it->value) drop(it);
      it = before;
    }
  }

  void drop(Place place) {
    bytes -= place->bytes;
    places.erase(place->key);
    entries.erase(place);
  }

  xgrammar::GrammarCompiler compiler;
  std::size_t most_bytes;
  std::size_t vocabulary = 0;
  std::mutex guard;
  std::condition_variable done;
  std::list<Entry> entries;
  std::unordered_map<std::string, Place> places;
  std::size_t bytes = 0;
};

ConstraintCompiler::ConstraintCompiler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConstraintCompiler::ConstraintCompiler(ConstraintCompiler&&) noexcept = default;
ConstraintCompiler& ConstraintCompiler::operator=(ConstraintCompiler&&) noexcept = default;
ConstraintCompiler::~ConstraintCompiler() = default;

Result<ConstraintCompiler> ConstraintCompiler::make(const Tokenizer& tokenizer, const ConstraintOptions& options) {
  std::vector<std::string> tokens(tokenizer.vocabulary_size());
  std::vector<std::int32_t> ends;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (tokenizer.ends_generation(id)) {
      ends.push_back(id);
    } else if (!tokenizer.is_control(id)) {
      tokens[i] = tokenizer.token_bytes(id);
    }
  }
  if (ends.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "the vocabulary has no token that ends a text, so that answers cannot be constrained", ""};
  }
  auto impl = guarded("the vocabulary", [&] {
    return std::make_unique<Impl>(xgrammar::TokenizerInfo(tokens, xgrammar::VocabType::RAW, std::nullopt, ends),
                                  options);
  });
  if (!impl) return impl.error();
  (*impl)->vocabulary = tokens.size();
  return ConstraintCompiler(std::move(*impl));
}

Result<std::shared_ptr<const Constraint>> ConstraintCompiler::compile(const ConstraintSpec& spec) {
  if (spec.kind == ConstraintSpec::Kind::kJsonSchema) TAILOR_CHECK(check_schema_depth(spec.schema, name_of(spec)));
  std::string key = key_of(spec);
  std::unique_lock lock(impl_->guard);
  for (;;) {
    const auto found = impl_->places.find(key);
    if (found == impl_->places.end()) break;
    const Impl::Place place = found->second;
    if (place->value) {
      impl_->entries.splice(impl_->entries.begin(), impl_->entries, place);
      impl_->weigh(place);
      return place->value;
    }
    impl_->done.wait(lock);
  }
  impl_->entries.push_front({.key = key});
  const Impl::Place place = impl_->entries.begin();
  impl_->places.emplace(std::move(key), place);
  lock.unlock();
  auto value = guarded(name_of(spec), [&] { return impl_->fresh(spec); });
  lock.lock();
  if (value && *value) {
    place->value = **value;
    impl_->weigh(place);
  } else {
    impl_->drop(place);
  }
  impl_->done.notify_all();
  if (!value) return value.error();
  return *std::move(value);
}

std::size_t ConstraintCompiler::vocabulary_size() const {
  return impl_->vocabulary;
}
std::size_t ConstraintCompiler::mask_words() const {
  return (impl_->vocabulary + 31) / 32;
}
std::size_t ConstraintCompiler::cached() const {
  const std::lock_guard lock(impl_->guard);
  return impl_->entries.size();
}
std::size_t ConstraintCompiler::cached_bytes() const {
  const std::lock_guard lock(impl_->guard);
  return impl_->bytes;
}

struct ConstraintState::Impl {
  std::shared_ptr<const Constraint> constraint;
  xgrammar::GrammarMatcher matcher;
  double seconds = 0;  // of processor time, for masks and tokens
  std::size_t calls = 0;

  template <typename Call>
  Result<bool> timed(Call&& call) {
    const double begin = thread_seconds();
    Result<bool> result = guarded("the constraint", std::forward<Call>(call));
    seconds += thread_seconds() - begin;
    if (seconds <= kSecondsFree + kSecondsEach * static_cast<double>(++calls) || !result) return result;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the grammar took {:.1f} s of processor time for {} tokens", seconds, calls / 2),
                 "it reads one text in too many ways: let no rule stand beside itself, as in \"list ::= list list\""};
  }
};

ConstraintState::ConstraintState(std::shared_ptr<const Constraint> constraint) {
  xgrammar::GrammarMatcher matcher(constraint->impl_->grammar);
  impl_ = std::make_unique<Impl>(Impl{std::move(constraint), std::move(matcher)});
}
ConstraintState::ConstraintState(const ConstraintState& other)
    : impl_(std::make_unique<Impl>(Impl{other.impl_->constraint, other.impl_->matcher.Fork()})) {}
ConstraintState& ConstraintState::operator=(const ConstraintState& other) {
  if (this != &other) *this = ConstraintState(other);
  return *this;
}
ConstraintState::ConstraintState(ConstraintState&&) noexcept = default;
ConstraintState& ConstraintState::operator=(ConstraintState&&) noexcept = default;
ConstraintState::~ConstraintState() = default;

Status ConstraintState::fill_mask(std::span<std::uint32_t> bits) {
  const auto tokens = static_cast<std::size_t>(impl_->constraint->impl_->grammar.GetTokenizerInfo().GetVocabSize());
  if (bits.size() != (tokens + 31) / 32) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a mask of {} words is given, expected {}", bits.size(), (tokens + 31) / 32), ""};
  }
  if (finished()) return Error{ErrorCode::kInvalidArgument, "the text has ended: no token may follow", ""};
  auto shape = static_cast<std::int64_t>(bits.size());
  DLTensor tensor{};
  tensor.data = bits.data();
  tensor.device = {kDLCPU, 0};
  tensor.ndim = 1;
  tensor.dtype = xgrammar::GetBitmaskDLType();
  tensor.shape = &shape;
  const auto filled = impl_->timed([&] { return impl_->matcher.FillNextTokenBitmask(&tensor); });
  if (!filled) return filled.error();
  if (!*filled) {  // all are allowed, and the mask was not written
    std::fill(bits.begin(), bits.end(), ~std::uint32_t{0});
  }
  if (std::all_of(bits.begin(), bits.end(), [](std::uint32_t word) { return word == 0; })) {
    return Error{ErrorCode::kInvalidArgument, "no token of the vocabulary can follow the text that was generated",
                 "use a model whose vocabulary has a token for every byte"};
  }
  return {};
}

Status ConstraintState::accept(std::int32_t token) {
  const auto tokens = impl_->constraint->impl_->grammar.GetTokenizerInfo().GetVocabSize();
  const Error refused{ErrorCode::kInvalidArgument,
                      fmt::format("token {} may not follow the text that was generated", token), ""};
  if (token < 0 || token >= tokens || finished()) return refused;
  const auto taken = impl_->timed([&] { return impl_->matcher.AcceptToken(token); });
  if (!taken) return taken.error();
  if (!*taken) return refused;
  return {};
}

bool ConstraintState::finished() const {
  return impl_->matcher.IsTerminated();
}
bool ConstraintState::may_end() const {
  return impl_->matcher.IsCompleted();
}

std::string ConstraintState::forced() {
  if (finished() || may_end()) return {};
  const auto text = guarded("the forced text", [&] { return impl_->matcher.FindJumpForwardString(); });
  return text ? *text : std::string();
}

}  // namespace tailor
