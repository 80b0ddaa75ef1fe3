#pragma once
/// The one table in which candidates are compared, for a terminal, as Markdown and as HTML. All three come from the
/// same cells, so they cannot disagree. Candidates that did not finish stand at the bottom with their reason.

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fit/trial.h"

namespace tailor {

struct TableOptions {
  std::string recommended;                    // id of the row to mark; empty: none
  std::size_t n_test = 0;                     // rows of the test part; rows scored on fewer get a mark
  std::string metric = "accuracy";            // FitOptions::metric; a column of its own unless the table has it anyway
  double price_per_hour = 0.10;               // for the note below the table
  std::map<std::string, std::string> titles;  // method -> "Frozen embeddings with logistic regression"; HTML only
};

struct ComparisonTable {
  struct Column {
    std::string key;           // "accuracy"
    std::string header;        // "Accuracy, %"
    std::string short_header;  // for the terminal
    bool numeric = false;      // right-aligned
    int drop = 0;              // terminal: larger is left out first where the width is short; 0: never
  };
  struct Cell {
    std::string text;     // Markdown, HTML
    std::string compact;  // terminal
    double sort = 0;      // HTML: sorts by it where numeric
  };
  struct Row {
    std::string id, method, base_model, title;
    bool recommended = false;
    TrialStatus status = TrialStatus::kOk;
    std::string reason;       // of a row that did not finish
    std::vector<int> notes;   // numbers of footnotes, from 1
    std::vector<Cell> cells;  // as columns; empty where status is not ok
    Interval quality;         // for the drawing beside accuracy
  };
  std::vector<Column> columns;  // method and base model first
  std::vector<Row> rows;        // best first, then failed, then skipped
  std::vector<std::string> footnotes;
  std::string legend;  // what the figures mean, one sentence or two
};

ComparisonTable make_comparison_table(const std::vector<TrialRecord>& trials, const TableOptions& options);

struct TerminalStyle {
  std::size_t width = 120;
  bool bold = false;  // ANSI bold for the recommended row
};
/// Lines of at most `width` columns (80 and more). Names and reasons cannot move the cursor: control characters go.
std::string terminal_table(const ComparisonTable& table, const TerminalStyle& style = {});
std::string markdown_table(const ComparisonTable& table);
/// <table>…</table> with the footnotes after it; well-formed as XML.
std::string html_table(const ComparisonTable& table);

/// Columns that a terminal uses for the text: 0 for combining marks, 2 for wide East Asian characters and emoji.
std::size_t display_width(std::string_view utf8);
/// Cut to at most `width` columns, with "…" where something was cut, and filled with spaces to `width`.
std::string fit_width(std::string_view utf8, std::size_t width, bool right_aligned = false);
/// Lines longer than `width` columns broken at spaces, each continued under its own first word (after "- ", "· " and
/// the like under the word that follows). A word longer than that stays whole: it may be a path.
std::string reflow(std::string_view text, std::size_t width);
/// Text for a Markdown cell or sentence: control characters go, and what Markdown would read as markup is escaped.
std::string escape_markdown(std::string_view text);

}  // namespace tailor
