#include "learn/sparse.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/result.h"

namespace tailor {

CsrMatrix transpose(const CsrMatrix& m) {
  CsrMatrix t;
  t.rows = m.cols;
  t.cols = m.rows;
  t.starts.assign(m.cols + 1, 0);
  t.columns.resize(m.columns.size());
  t.values.resize(m.values.size());
  for (const auto c : m.columns) ++t.starts[c + 1];
  for (std::size_t c = 0; c < m.cols; ++c) t.starts[c + 1] += t.starts[c];
  std::vector<std::size_t> next(t.starts.begin(), t.starts.end() - 1);
  for (std::size_t r = 0; r < m.rows; ++r) {
    for (std::size_t e = m.starts[r]; e < m.starts[r + 1]; ++e) {
      const std::size_t to = next[m.columns[e]]++;
      t.columns[to] = static_cast<std::uint32_t>(r);
      t.values[to] = m.values[e];
    }
  }
  return t;
}

CsrMatrix join_columns(const CsrMatrix& a, const CsrMatrix& b) {
  if (a.rows != b.rows) {
    throw Exception(
        {ErrorCode::kInvalidArgument, fmt::format("cannot join {} rows beside {} rows", a.rows, b.rows), ""});
  }
  CsrMatrix out;
  out.rows = a.rows;
  out.cols = a.cols + b.cols;
  out.starts.reserve(out.rows + 1);
  out.columns.reserve(a.columns.size() + b.columns.size());
  out.values.reserve(a.values.size() + b.values.size());
  for (std::size_t r = 0; r < a.rows; ++r) {
    for (std::size_t e = a.starts[r]; e < a.starts[r + 1]; ++e) {
      out.columns.push_back(a.columns[e]);
      out.values.push_back(a.values[e]);
    }
    for (std::size_t e = b.starts[r]; e < b.starts[r + 1]; ++e) {
      out.columns.push_back(b.columns[e] + static_cast<std::uint32_t>(a.cols));
      out.values.push_back(b.values[e]);
    }
    out.starts.push_back(out.columns.size());
  }
  return out;
}

CsrMatrix gather_rows(const CsrMatrix& m, std::span<const std::size_t> rows) {
  CsrMatrix out;
  out.rows = rows.size();
  out.cols = m.cols;
  out.starts.reserve(rows.size() + 1);
  for (const std::size_t r : rows) {
    out.columns.insert(out.columns.end(), m.columns.data() + m.starts[r], m.columns.data() + m.starts[r + 1]);
    out.values.insert(out.values.end(), m.values.data() + m.starts[r], m.values.data() + m.starts[r + 1]);
    out.starts.push_back(out.columns.size());
  }
  return out;
}

Matrix gather_rows(const Matrix& m, std::span<const std::size_t> rows) {
  Matrix out(rows.size(), m.cols);
  for (std::size_t i = 0; i < rows.size(); ++i) std::ranges::copy(m.row(rows[i]), out.row(i).begin());
  return out;
}

}  // namespace tailor
