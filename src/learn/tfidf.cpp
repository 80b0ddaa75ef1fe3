#include "learn/tfidf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <iterator>
#include <numeric>
#include <utility>

#include "core/files.h"
#include "core/json.h"

namespace tailor {
namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFFu;

Error invalid(std::string message, std::string hint = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(hint)};
}

/// Term -> number in order of arrival. Bytes lie in large blocks, slots in one open table: no allocation per term.
class TermTable {
 public:
  std::uint32_t find(std::string_view term) const { return slots_.empty() ? kNone : slots_[slot_of(term)]; }

  std::uint32_t add(std::string_view term) {
    if (2 * (views_.size() + 1) > slots_.size()) grow();
    std::uint32_t& slot = slots_[slot_of(term)];
    if (slot == kNone) {
      slot = static_cast<std::uint32_t>(views_.size());
      views_.push_back(keep(term));
    }
    return slot;
  }
  std::size_t size() const { return views_.size(); }
  std::string_view term(std::size_t id) const { return views_[id]; }

 private:
  static std::uint64_t hash(std::string_view s) {
    std::uint64_t h = 0x9E3779B97F4A7C15ULL ^ s.size();
    for (std::size_t i = 0; i < s.size(); i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, s.data() + i, std::min<std::size_t>(8, s.size() - i));
      h = (h ^ word) * 0xFF51AFD7ED558CCDULL;
      h ^= h >> 32;
    }
    return h;
  }
  std::size_t slot_of(std::string_view term) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = hash(term) & mask;
    while (slots_[i] != kNone && views_[slots_[i]] != term) i = (i + 1) & mask;
    return i;
  }
  void grow() {
    slots_.assign(std::max<std::size_t>(1024, slots_.size() * 2), kNone);
    for (std::size_t id = 0; id < views_.size(); ++id) slots_[slot_of(views_[id])] = static_cast<std::uint32_t>(id);
  }
  std::string_view keep(std::string_view term) {
    constexpr std::size_t kBlock = std::size_t{1} << 18;
    if (blocks_.empty() || blocks_.back().capacity() - blocks_.back().size() < term.size()) {
      blocks_.emplace_back().reserve(std::max(kBlock, term.size()));
    }
    std::string& block = blocks_.back();
    const std::size_t at = block.size();
    block.append(term);
    return {block.data() + at, term.size()};
  }

  std::vector<std::uint32_t> slots_;
  std::vector<std::string_view> views_;
  std::deque<std::string> blocks_;  // never reallocated beyond their capacity, so views stay valid
};

Status check(const TfidfOptions& o) {
  if (o.terms.min_n < 1 || o.terms.max_n < o.terms.min_n) {
    return invalid(fmt::format("n-grams from {} to {}: the first must be at least 1 and not above the second",
                               o.terms.min_n, o.terms.max_n));
  }
  if (o.min_df < 1) return invalid(fmt::format("min_df must be at least 1, not {}", o.min_df));
  if (!(o.max_df > 0 && o.max_df <= 1))
    return invalid(fmt::format("max_df must be a share above 0 up to 1, not {}", o.max_df));
  return {};
}

constexpr std::pair<TermOptions::Kind, const char*> kKindNames[] = {
    {TermOptions::Kind::kWords, "words"},
    {TermOptions::Kind::kWordsAndMarks, "words and marks"},
    {TermOptions::Kind::kCharacters, "characters"},
};

const char* kind_name(TermOptions::Kind kind) {
  return std::find_if(std::begin(kKindNames), std::end(kKindNames), [&](const auto& k) { return k.first == kind; })
      ->second;
}

}  // namespace

struct Tfidf::State {
  TfidfOptions options;
  std::int64_t documents = 0;
  std::vector<std::string> terms;                // in byte order
  std::vector<std::int64_t> document_frequency;  // [terms]
  std::vector<double> idf;                       // [terms]
  TermTable table;                               // term -> column

  void index() {
    const double one = options.smooth_idf ? 1.0 : 0.0;
    for (std::size_t t = 0; t < terms.size(); ++t) {
      table.add(terms[t]);
      idf.push_back(
          std::log((static_cast<double>(documents) + one) / (static_cast<double>(document_frequency[t]) + one)) + 1.0);
    }
  }
};

Result<Tfidf> Tfidf::fit(std::span<const std::string> texts, const TfidfOptions& options) {
  TAILOR_CHECK(check(options));
  if (texts.empty()) return invalid("there are no texts to learn terms from");
  TermTable table;
  std::vector<std::int64_t> total;      // occurrences
  std::vector<std::int64_t> documents;  // documents with the term
  std::vector<std::size_t> last;        // document that had it last, plus one
  TermCutter cutter(options.terms);
  for (std::size_t d = 0; d < texts.size(); ++d) {
    cutter.cut(texts[d], [&](std::string_view term) {
      const std::uint32_t id = table.add(term);
      if (id == total.size()) {
        total.push_back(0);
        documents.push_back(0);
        last.push_back(0);
      }
      ++total[id];
      if (last[id] != d + 1) {
        last[id] = d + 1;
        ++documents[id];
      }
    });
  }
  const double most = options.max_df * static_cast<double>(texts.size());
  std::vector<std::uint32_t> kept;
  for (std::uint32_t id = 0; id < table.size(); ++id) {
    if (documents[id] >= options.min_df && static_cast<double>(documents[id]) <= most) kept.push_back(id);
  }
  const auto by_bytes = [&](std::uint32_t a, std::uint32_t b) { return table.term(a) < table.term(b); };
  if (options.max_features > 0 && kept.size() > options.max_features) {
    std::sort(kept.begin(), kept.end(), [&](std::uint32_t a, std::uint32_t b) {
      return total[a] != total[b] ? total[a] > total[b] : by_bytes(a, b);
    });
    kept.resize(options.max_features);
  }
  if (kept.empty()) {
    return invalid(fmt::format("none of the {} terms of {} texts is left as a feature", table.size(), texts.size()),
                   "lower min_df, raise max_df, or check that the text column is not empty");
  }
  std::sort(kept.begin(), kept.end(), by_bytes);
  auto state = std::make_shared<State>();
  state->options = options;
  state->documents = static_cast<std::int64_t>(texts.size());
  for (const std::uint32_t id : kept) {
    state->terms.emplace_back(table.term(id));
    state->document_frequency.push_back(documents[id]);
  }
  state->index();
  return Tfidf(std::move(state));
}

CsrMatrix Tfidf::transform(std::span<const std::string> texts) const {
  const State& s = *state_;
  CsrMatrix out;
  out.rows = texts.size();
  out.cols = s.terms.size();
  out.starts.reserve(texts.size() + 1);
  std::vector<std::uint32_t> count(s.terms.size());
  std::vector<std::uint32_t> seen;
  std::vector<double> values;
  TermCutter cutter(s.options.terms);
  for (const std::string& text : texts) {
    seen.clear();
    cutter.cut(text, [&](std::string_view term) {
      const std::uint32_t id = s.table.find(term);
      if (id != kNone && count[id]++ == 0) seen.push_back(id);
    });
    std::sort(seen.begin(), seen.end());
    values.clear();
    double squares = 0;
    for (const std::uint32_t id : seen) {
      const auto n = static_cast<double>(count[id]);
      const double v = (s.options.sublinear_tf ? 1.0 + std::log(n) : n) * s.idf[id];
      values.push_back(v);
      squares += v * v;
      count[id] = 0;
    }
    const double scale = s.options.l2 && squares > 0 ? 1.0 / std::sqrt(squares) : 1.0;
    for (std::size_t i = 0; i < seen.size(); ++i) {
      out.columns.push_back(seen[i]);
      out.values.push_back(static_cast<float>(values[i] * scale));
    }
    out.starts.push_back(out.columns.size());
  }
  return out;
}

std::size_t Tfidf::size() const {
  return state_->terms.size();
}
const std::vector<std::string>& Tfidf::terms() const {
  return state_->terms;
}
const TfidfOptions& Tfidf::options() const {
  return state_->options;
}
double Tfidf::idf(std::size_t term) const {
  return state_->idf[term];
}

Status Tfidf::save(const std::filesystem::path& file) const {
  const State& s = *state_;
  const TfidfOptions& o = s.options;
  Json json;
  json["format"] = "tailor-tfidf-1";
  json["terms_of"] = kind_name(o.terms.kind);
  json["min_n"] = o.terms.min_n;
  json["max_n"] = o.terms.max_n;
  json["lowercase"] = o.terms.lowercase;
  json["min_df"] = o.min_df;
  json["max_df"] = o.max_df;
  json["max_features"] = o.max_features;
  json["sublinear_tf"] = o.sublinear_tf;
  json["smooth_idf"] = o.smooth_idf;
  json["l2"] = o.l2;
  json["documents"] = s.documents;
  json["terms"] = s.terms;
  json["document_frequency"] = s.document_frequency;
  return write_file_atomic(file, dump_json(json) + "\n");
}

Result<Tfidf> Tfidf::load(const std::filesystem::path& file) {
  TAILOR_TRY(const Json json, read_json(file));
  const auto corrupt = [&](std::string_view what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "make the package again"};
  };
  auto state = std::make_shared<State>();
  try {
    if (json.at("format") != "tailor-tfidf-1") return corrupt("expected format tailor-tfidf-1");
    TfidfOptions& o = state->options;
    const auto kind = json.at("terms_of").get<std::string>();
    const auto* const named =
        std::find_if(std::begin(kKindNames), std::end(kKindNames), [&](const auto& k) { return k.second == kind; });
    if (named == std::end(kKindNames)) return corrupt(fmt::format("unknown kind of terms '{}'", kind));
    o.terms.kind = named->first;
    o.terms.min_n = json.at("min_n").get<int>();
    o.terms.max_n = json.at("max_n").get<int>();
    o.terms.lowercase = json.at("lowercase").get<bool>();
    o.min_df = json.at("min_df").get<int>();
    o.max_df = json.at("max_df").get<double>();
    o.max_features = json.at("max_features").get<std::size_t>();
    o.sublinear_tf = json.at("sublinear_tf").get<bool>();
    o.smooth_idf = json.at("smooth_idf").get<bool>();
    o.l2 = json.at("l2").get<bool>();
    state->documents = json.at("documents").get<std::int64_t>();
    state->terms = json.at("terms").get<std::vector<std::string>>();
    state->document_frequency = json.at("document_frequency").get<std::vector<std::int64_t>>();
  } catch (const Json::exception& e) {
    return corrupt(e.what());
  }
  if (auto ok = check(state->options); !ok) return corrupt(ok.error().message);
  if (state->terms.empty() || state->terms.size() != state->document_frequency.size() || state->terms.size() >= kNone) {
    return corrupt(fmt::format("{} terms and {} document frequencies do not belong together", state->terms.size(),
                               state->document_frequency.size()));
  }
  for (std::size_t t = 0; t < state->terms.size(); ++t) {
    const bool ordered = t == 0 || state->terms[t - 1] < state->terms[t];
    const std::int64_t df = state->document_frequency[t];
    if (!ordered || df < 1 || df > state->documents) return corrupt(fmt::format("term {} is out of order or range", t));
  }
  state->index();
  return Tfidf(std::move(state));
}

}  // namespace tailor
