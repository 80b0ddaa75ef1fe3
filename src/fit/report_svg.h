#pragma once
/// Small parts for drawing: an SVG writer, scales with readable ticks, and placing labels so that they do not overlap.
/// Colours come from the report's style sheet by class names, so that light, dark and print agree.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "eval/intervals.h"

namespace tailor {

/// Writes one <svg> with a title and description for screen readers. Text is escaped here, class names are ours.
class Svg {
 public:
  Svg(double width, double height, std::string_view title, std::string_view description,
      std::string_view css_class = "");
  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void rect(double x, double y, double w, double h, std::string_view css_class, std::string_view tip = {},
            double opacity = 1);
  void circle(double x, double y, double r, std::string_view css_class, std::string_view tip = {});
  /// 'o' circle, 's' square, '^' triangle, 'v' triangle pointing down.
  void marker(char shape, double x, double y, double r, std::string_view css_class, std::string_view tip = {});
  void path(std::string_view d, std::string_view css_class);
  void text(double x, double y, std::string_view text, std::string_view css_class, std::string_view anchor = "start");
  void vertical_text(double x, double y, std::string_view text, std::string_view css_class,
                     std::string_view anchor = "middle");
  std::string finish() &&;

 private:
  std::string out_;
};

std::string svg_number(double value);  // at most one decimal

/// Where a value lands between two pixels; linear or logarithmic.
struct Scale {
  double low = 0, high = 1;  // of the values; > 0 where logarithmic
  double from = 0, to = 1;   // pixels
  bool logarithmic = false;
  double operator()(double value) const;
  std::vector<double> ticks(std::size_t about) const;  // round values inside
};

/// Range of an axis of shares (0 … 1) for scores with their intervals. Where some lie far below the best (floors,
/// mostly) the axis shows the upper field and `cut` is set: what lies below belongs on the lower edge, marked as such.
struct QualityRange {
  double low = 0, high = 1;
  bool cut = false;
};
QualityRange quality_range(const std::vector<Interval>& scores);

struct Box {
  double x = 0, y = 0, w = 0, h = 0;
};
/// A label for the point (x, y). In: text size, point. Out: `box`, and whether a leader line should join them.
struct PlacedLabel {
  double x = 0, y = 0, w = 0, h = 0;
  Box box;
  bool leader = false;
};
/// Greedy in the order given: earlier labels get the better places. `obstacles` are kept free where possible, and a
/// label keeps away from the points of the others, so that it cannot be taken for theirs.
void place_labels(std::vector<PlacedLabel>& labels, const std::vector<Box>& obstacles, const Box& field);

}  // namespace tailor
