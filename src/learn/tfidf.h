#pragma once
/// TF-IDF features of short texts, as scikit-learn's TfidfVectorizer makes them:
///
///   idf(t) = ln((1 + documents) / (1 + documents with t)) + 1     (without smoothing: no ones inside the logarithm)
///   value  = tf * idf(t), tf the number of occurrences or 1 + ln of it (sublinear_tf); rows scaled to length 1 (l2)
///
/// Columns are the terms in byte order, which is scikit-learn's order. Where max_features cuts among terms of equal
/// count, the first in byte order stay (scikit-learn leaves that open).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "learn/sparse.h"
#include "learn/terms.h"

namespace tailor {

struct TfidfOptions {
  TermOptions terms;             // what is counted: words of 1 … 2, characters of 3 … 5, …
  int min_df = 1;                // >= 1; terms in fewer documents are left out
  double max_df = 1.0;           // in (0, 1]; terms in a larger share of documents are left out
  std::size_t max_features = 0;  // the most frequent terms kept; 0: all
  bool sublinear_tf = false;
  bool smooth_idf = true;
  bool l2 = true;
};

/// Immutable once fitted; safe to use from several threads. Cheap to copy.
class Tfidf {
 public:
  /// Errors: options out of range; no texts; no term left (e.g. every text empty, min_df too high).
  static Result<Tfidf> fit(std::span<const std::string> texts, const TfidfOptions& options);
  /// [texts, terms]. Unknown terms are ignored; a text without known terms is an empty row.
  CsrMatrix transform(std::span<const std::string> texts) const;

  std::size_t size() const;  // terms
  const std::vector<std::string>& terms() const;
  const TfidfOptions& options() const;
  double idf(std::size_t term) const;

  /// One JSON file: options, number of documents, terms and the number of documents of each.
  Status save(const std::filesystem::path& file) const;
  static Result<Tfidf> load(const std::filesystem::path& file);

 private:
  struct State;
  explicit Tfidf(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace tailor
