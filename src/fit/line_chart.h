#pragma once
/// Curves over the steps of a training, as inline SVG in the report's style.

#include <string>
#include <string_view>
#include <vector>

namespace tailor {

struct CurvePoint {
  double x = 0, y = 0;
};

struct Curve {
  std::string name;  // for tips and the description
  std::vector<CurvePoint> points;
  bool second = false;    // the other colour
  bool marks = false;     // a dot at every point: few points, such as evaluations
  bool smoothed = false;  // the points faint, and their running mean over them
};

struct LineChart {
  std::string title, x_title = "Step", y_title;
  double width = 460, height = 250;
  bool percent = false;      // y is a share
  bool from_zero = false;    // the y axis begins at 0
  bool logarithmic = false;  // y; values must be above 0
  double best_x = -1;        // a ring around the point there, of the first curve with marks
  std::string best_text;     // beside it
  std::vector<Curve> curves;
};

/// Empty where no curve has a finite point. More than 500 points of a curve are drawn as means of equal parts.
std::string line_chart(const LineChart& chart);

/// Means over a window that grows to `window` points and is shorter at the beginning.
std::vector<CurvePoint> running_mean(const std::vector<CurvePoint>& points, std::size_t window);

}  // namespace tailor
