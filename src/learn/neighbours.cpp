#include "learn/neighbours.h"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "core/safetensors.h"
#include "learn/parallel.h"

namespace tailor {
namespace {

constexpr std::size_t kQueryBlock = 128;
constexpr std::size_t kRowBlock = 2048;
constexpr std::size_t kSpare = 8;  // candidates kept beyond k, since products round differently by block

Error invalid(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message), ""};
}

void scale_to_length_one(std::span<float> row) {
  double squares = 0;
  for (const float v : row) squares += static_cast<double>(v) * static_cast<double>(v);
  const double scale = squares > 0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (float& v : row) v = static_cast<float>(static_cast<double>(v) * scale);
}

float exact_similarity(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return static_cast<float>(sum);
}

struct Candidate {
  float similarity;
  std::uint32_t row;
};
bool nearer(const Candidate& a, const Candidate& b) {
  return a.similarity != b.similarity ? a.similarity > b.similarity : a.row < b.row;
}

/// The best `capacity` of what is offered, as a heap with the worst on top.
class Best {
 public:
  explicit Best(std::size_t capacity) : capacity_(capacity) { heap_.reserve(capacity); }
  void offer(Candidate c) {
    if (heap_.size() < capacity_) {
      heap_.push_back(c);
      std::push_heap(heap_.begin(), heap_.end(), nearer);
    } else if (nearer(c, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), nearer);
      heap_.back() = c;
      std::push_heap(heap_.begin(), heap_.end(), nearer);
    }
  }
  std::vector<Candidate>& items() { return heap_; }

 private:
  std::size_t capacity_;
  std::vector<Candidate> heap_;
};

}  // namespace

Result<NeighbourIndex> NeighbourIndex::make(const Matrix& embeddings) {
  if (embeddings.rows == 0 || embeddings.cols == 0) return invalid("there are no rows to search for neighbours");
  Matrix rows = embeddings;
  for (std::size_t i = 0; i < rows.rows; ++i) {
    for (const float v : rows.row(i)) {
      if (!std::isfinite(v))
        return invalid(fmt::format("row {} of the embeddings has a value that is not a finite number", i));
    }
    scale_to_length_one(rows.row(i));
  }
  return NeighbourIndex(std::move(rows));
}

TopK NeighbourIndex::top_k(const Matrix& queries, std::size_t k, int threads,
                           std::span<const std::int64_t> leave_out) const {
  if (k == 0 || queries.cols != rows_.cols || (!leave_out.empty() && leave_out.size() != queries.rows)) {
    throw Exception(invalid(fmt::format("{} neighbours of {} rows of width {} ({} left out) in an index of width {}", k,
                                        queries.rows, queries.cols, leave_out.size(), rows_.cols)));
  }
  const std::size_t available = rows_.rows - (leave_out.empty() ? 0 : 1);
  TopK out;
  out.queries = queries.rows;
  out.k = std::min(k, available);
  out.rows.resize(out.queries * out.k);
  out.similarities.resize(out.queries * out.k);
  if (out.k == 0) return out;
  const std::size_t d = rows_.cols;
  for_pieces(threads, (queries.rows + kQueryBlock - 1) / kQueryBlock, [&](std::size_t piece) {
    const std::size_t begin = piece * kQueryBlock;
    const std::size_t count = std::min(kQueryBlock, queries.rows - begin);
    Matrix block(count, d);
    for (std::size_t q = 0; q < count; ++q) {
      std::ranges::copy(queries.row(begin + q), block.row(q).begin());
      scale_to_length_one(block.row(q));
    }
    std::vector<Best> best(count, Best(out.k + kSpare));
    std::vector<float> products(count * std::min(kRowBlock, rows_.rows));
    for (std::size_t from = 0; from < rows_.rows; from += kRowBlock) {
      const std::size_t n = std::min(kRowBlock, rows_.rows - from);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(count), static_cast<int>(n),
                  static_cast<int>(d), 1.0f, block.data.data(), static_cast<int>(d), rows_.data.data() + from * d,
                  static_cast<int>(d), 0.0f, products.data(), static_cast<int>(n));
      for (std::size_t q = 0; q < count; ++q) {
        const std::int64_t skip = leave_out.empty() ? -1 : leave_out[begin + q];
        for (std::size_t j = 0; j < n; ++j) {
          if (static_cast<std::int64_t>(from + j) != skip) {
            best[q].offer({products[q * n + j], static_cast<std::uint32_t>(from + j)});
          }
        }
      }
    }
    for (std::size_t q = 0; q < count; ++q) {
      auto& items = best[q].items();
      for (Candidate& c : items) c.similarity = exact_similarity(block.row(q), rows_.row(c.row));
      std::sort(items.begin(), items.end(), nearer);
      for (std::size_t j = 0; j < out.k; ++j) {
        out.rows[(begin + q) * out.k + j] = items[j].row;
        out.similarities[(begin + q) * out.k + j] = items[j].similarity;
      }
    }
  });
  return out;
}

TopK NeighbourIndex::top_k_of_own_rows(std::size_t k, int threads) const {
  std::vector<std::int64_t> self(rows_.rows);
  for (std::size_t i = 0; i < self.size(); ++i) self[i] = static_cast<std::int64_t>(i);
  return top_k(rows_, k, threads, self);
}

Matrix neighbour_probabilities(const TopK& neighbours, std::span<const int> row_labels, int classes,
                               const NeighbourOptions& options) {
  constexpr double kTieShare = 1e-6;
  const std::size_t k = std::min(options.k, neighbours.k);
  Matrix out(neighbours.queries, static_cast<std::size_t>(classes));
  std::vector<double> votes(static_cast<std::size_t>(classes));
  for (std::size_t q = 0; q < neighbours.queries; ++q) {
    std::fill(votes.begin(), votes.end(), 0.0);
    const std::size_t at = q * neighbours.k;
    double sum = 0;
    for (std::size_t j = 0; j < k; ++j) {
      double vote = 1.0;
      if (options.temperature > 0) {
        vote = std::exp(static_cast<double>(neighbours.similarities[at + j] - neighbours.similarities[at]) /
                        options.temperature);
      }
      vote *= 1.0 + kTieShare * static_cast<double>(k - j) / static_cast<double>(k);
      votes[static_cast<std::size_t>(row_labels[neighbours.rows[at + j]])] += vote;
      sum += vote;
    }
    for (std::size_t c = 0; c < votes.size(); ++c) {
      const double even = 1.0 / static_cast<double>(votes.size());
      const double p = sum > 0 ? votes[c] / sum : even;
      out.row(q)[c] = static_cast<float>((1.0 - options.smoothing) * p + options.smoothing * even);
    }
  }
  return out;
}

Result<NeighbourSelection> select_neighbours(
    const TopK& neighbours, std::span<const int> row_labels, std::span<const int> truth, int classes,
    std::span<const std::size_t> ks, std::span<const double> temperatures,
    const std::function<double(std::span<const int>, std::span<const int>)>& score) {
  if (ks.empty() || truth.empty() || truth.size() != neighbours.queries || neighbours.k == 0) {
    return invalid(fmt::format(
        "choosing neighbours needs values of k, and as many true labels ({}) as queries ({}) with neighbours",
        truth.size(), neighbours.queries));
  }
  NeighbourSelection out;
  std::vector<std::size_t> tried;
  for (const std::size_t asked : ks) {
    const std::size_t k = std::min(asked, neighbours.k);
    if (k == 0 || std::ranges::find(tried, k) != tried.end()) continue;
    tried.push_back(k);
    std::vector<double> weights = {0.0};
    if (k > 1) weights.insert(weights.end(), temperatures.begin(), temperatures.end());  // one vote is one vote
    for (const double temperature : weights) {
      NeighbourPoint point{{.k = k, .temperature = temperature}};
      const Matrix p = neighbour_probabilities(neighbours, row_labels, classes, point.options);
      std::vector<int> predicted(p.rows);
      for (std::size_t i = 0; i < p.rows; ++i) {
        const auto row = p.row(i);
        predicted[i] = static_cast<int>(std::ranges::max_element(row) - row.begin());
        point.log_loss -= std::log(std::max(static_cast<double>(row[static_cast<std::size_t>(truth[i])]), 1e-4));
      }
      point.log_loss /= static_cast<double>(p.rows);
      point.score = score(truth, predicted);
      out.curve.push_back(point);
    }
  }
  if (out.curve.empty()) return invalid("every k to try is 0; at least one neighbour is needed");
  const NeighbourPoint* best = &out.curve.front();
  for (const NeighbourPoint& point : out.curve) {
    const double lead = point.score - best->score;
    if (lead > 1e-12 || (std::abs(lead) <= 1e-12 && point.log_loss < best->log_loss)) best = &point;
  }
  out.best = best->options;
  return out;
}

Matrix NeighbourModel::probabilities(const Matrix& queries, int threads) const {
  return neighbour_probabilities(index.top_k(queries, options.k, threads), labels, classes, options);
}

Status NeighbourModel::save(const std::filesystem::path& file) const {
  const auto rows = static_cast<std::int64_t>(index.size());
  const std::vector<SafeTensor> tensors = {
      safe_tensor<float>("embeddings", "F32", {rows, static_cast<std::int64_t>(index.width())}, index.rows().data),
      safe_tensor<int>("labels", "I32", {rows}, labels)};
  return write_safetensors(file, tensors,
                           {{"format", "tailor-neighbours-1"},
                            {"classes", std::to_string(classes)},
                            {"k", std::to_string(options.k)},
                            {"temperature", fmt::format("{}", options.temperature)},
                            {"smoothing", fmt::format("{}", options.smoothing)}});
}

Result<NeighbourModel> NeighbourModel::load(const std::filesystem::path& file) {
  TAILOR_TRY(const SafetensorsFile tensors, SafetensorsFile::open(file));
  const auto corrupt = [&](std::string_view what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "make the package again"};
  };
  const auto number = [&](const char* key, double low, double high) -> Result<double> {
    const auto it = tensors.metadata().find(key);
    const auto json = it == tensors.metadata().end() ? Result<Json>(Json()) : parse_json(it->second, key);
    if (!json || !json->is_number()) return corrupt(fmt::format("{} is not a number", key));
    const auto value = json->get<double>();
    if (!(value >= low && value <= high))
      return corrupt(fmt::format("{} is {}, expected {} to {}", key, value, low, high));
    return value;
  };
  const auto format = tensors.metadata().find("format");
  if (format == tensors.metadata().end() || format->second != "tailor-neighbours-1") {
    return corrupt("expected nearest neighbours of format tailor-neighbours-1");
  }
  TAILOR_TRY(const double classes, number("classes", 1, 1 << 24));
  TAILOR_TRY(const double k, number("k", 1, 1e9));
  TAILOR_TRY(const double temperature, number("temperature", 0, 1e9));
  TAILOR_TRY(const double smoothing, number("smoothing", 0, 1));
  TAILOR_TRY(const SafeTensor embeddings, tensors.get("embeddings", "F32", 2));
  TAILOR_TRY(const SafeTensor labels, tensors.get("labels", "I32", 1));
  if (labels.shape[0] != embeddings.shape[0]) return corrupt("as many labels as embeddings are needed");
  Matrix rows(static_cast<std::size_t>(embeddings.shape[0]), static_cast<std::size_t>(embeddings.shape[1]));
  std::copy_n(embeddings.bytes.data(), embeddings.bytes.size(), reinterpret_cast<char*>(rows.data.data()));
  std::vector<int> row_labels(rows.rows);
  std::copy_n(labels.bytes.data(), labels.bytes.size(), reinterpret_cast<char*>(row_labels.data()));
  for (const int y : row_labels) {
    if (y < 0 || y >= static_cast<int>(classes)) return corrupt(fmt::format("label {} is not below {}", y, classes));
  }
  // Already of length 1: scaling again would move the last bit, and answers must not change by saving.
  for (const float v : rows.data) {
    if (!std::isfinite(v)) return corrupt("an embedding is not a finite number");
  }
  if (rows.rows == 0 || rows.cols == 0) return corrupt("there are no embeddings");
  return NeighbourModel{NeighbourIndex(std::move(rows)),
                        std::move(row_labels),
                        static_cast<int>(classes),
                        {static_cast<std::size_t>(k), temperature, smoothing}};
}

}  // namespace tailor
