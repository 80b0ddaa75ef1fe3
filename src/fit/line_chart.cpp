#include "fit/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "fit/report_format.h"
#include "fit/report_svg.h"

namespace tailor {
namespace {

constexpr std::size_t kMostPoints = 500;

/// Finite points; where there are many, means of equal parts.
std::vector<CurvePoint> drawn(const std::vector<CurvePoint>& points, bool logarithmic) {
  std::vector<CurvePoint> finite;
  for (const CurvePoint& p : points) {
    if (std::isfinite(p.x) && std::isfinite(p.y) && (!logarithmic || p.y > 0)) finite.push_back(p);
  }
  if (finite.size() <= kMostPoints) return finite;
  std::vector<CurvePoint> out;
  for (std::size_t part = 0; part < kMostPoints; ++part) {
    const std::size_t from = part * finite.size() / kMostPoints, to = (part + 1) * finite.size() / kMostPoints;
    CurvePoint mean;
    for (std::size_t i = from; i < to; ++i) {
      mean.x += finite[i].x / static_cast<double>(to - from);
      mean.y += finite[i].y / static_cast<double>(to - from);
    }
    out.push_back(mean);
  }
  return out;
}

/// "2e-4", as people write rates.
std::string short_power(double value) {
  const int power = static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9));
  return fmt::format("{:.3g}e{}", value / std::pow(10.0, power), power);
}

std::string path_of(const std::vector<CurvePoint>& points, const Scale& x, const Scale& y) {
  std::string d;
  for (const CurvePoint& p : points)
    d += fmt::format("{}{} {}", d.empty() ? "M" : "L", svg_number(x(p.x)), svg_number(y(p.y)));
  return d;
}

}  // namespace

std::vector<CurvePoint> running_mean(const std::vector<CurvePoint>& points, std::size_t window) {
  std::vector<CurvePoint> out;
  double sum = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    sum += points[i].y;
    if (i >= window) sum -= points[i - window].y;
    out.push_back({points[i].x, sum / static_cast<double>(std::min(i + 1, window))});
  }
  return out;
}

std::string line_chart(const LineChart& chart) {
  std::vector<std::vector<CurvePoint>> curves;
  double low_x = 1e300, high_x = -1e300, low = 1e300, high = -1e300;
  for (const Curve& curve : chart.curves) {
    curves.push_back(drawn(curve.points, chart.logarithmic));
    for (const CurvePoint& p : curves.back()) {
      low_x = std::min(low_x, p.x);
      high_x = std::max(high_x, p.x);
      low = std::min(low, p.y);
      high = std::max(high, p.y);
    }
  }
  if (high_x < low_x) return {};
  if (high_x == low_x) ++high_x, --low_x;
  if (chart.from_zero && !chart.logarithmic) low = 0;
  if (chart.logarithmic) {
    low /= 1.2;
    high *= 1.2;
  } else {
    const double margin = high > low ? 0.05 * (high - low) : std::max(1e-9, 0.05 * std::abs(high));
    if (!chart.from_zero) low = low >= 0 ? std::max(0.0, low - margin) : low - margin;
    high += margin;
    if (chart.percent) low = std::max(0.0, low), high = std::min(1.0, std::max(high, low + 1e-6));
  }
  const double left = 62, right = 14, top = chart.best_text.empty() ? 12 : 30, bottom = 42;
  const Scale x{low_x, high_x, left, chart.width - right};
  const Scale y{low, high, chart.height - bottom, top, chart.logarithmic};
  const double most = std::max(std::abs(low), std::abs(high));
  const auto value = [&](double v) {
    if (!chart.percent && most < 1e-2 && v != 0) return short_power(v);
    return chart.percent ? fmt::format("{:.4g} %", 100 * v) : fmt::format("{:.3g}", v);
  };

  std::string description;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    if (curves[i].empty()) continue;
    description += fmt::format("{}: {} at {:g}, {} at {:g}. ", chart.curves[i].name, value(curves[i].front().y),
                               curves[i].front().x, value(curves[i].back().y), curves[i].back().x);
  }
  Svg svg(chart.width, chart.height, chart.title, description, "chart");
  for (const double tick : y.ticks(5)) {
    svg.line(left, y(tick), chart.width - right, y(tick), "grid");
    svg.text(left - 6, y(tick) + 4, value(tick), "tick", "end");
  }
  for (const double tick : x.ticks(chart.width > 600 ? 10 : 5)) {
    if (std::floor(tick) != tick) continue;
    svg.text(x(tick), chart.height - bottom + 16, format_count(static_cast<std::uint64_t>(std::max(0.0, tick))), "tick",
             x(tick) > chart.width - right - 12 ? "end" : "middle");
  }
  svg.line(left, y(low), chart.width - right, y(low), "axis");
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const Curve& curve = chart.curves[i];
    if (curves[i].empty()) continue;
    const bool smooth = curve.smoothed && curves[i].size() >= 16;
    if (smooth) {
      svg.path(path_of(curves[i], x, y), "trace");
      svg.path(path_of(running_mean(curves[i], std::max<std::size_t>(4, curves[i].size() / 20)), x, y), "curve");
    } else {
      svg.path(path_of(curves[i], x, y), curve.second ? "curve second" : "curve");
    }
    const bool dots = curve.marks || curves[i].size() == 1;
    for (const CurvePoint& p : curves[i]) {
      if (!dots) break;
      svg.circle(x(p.x), y(p.y), 3.6, curve.second ? "mark s-trained" : "mark s-frozen",
                 fmt::format("{}, step {:g}: {}", curve.name, p.x, value(p.y)));
    }
  }
  for (std::size_t i = 0; i < curves.size(); ++i) {
    if (chart.best_x < 0 || !chart.curves[i].marks) continue;
    for (const CurvePoint& p : curves[i]) {
      if (p.x != chart.best_x) continue;
      svg.circle(x(p.x), y(p.y), 7, "ring", chart.best_text);
      const char* anchor = x(p.x) > chart.width - 70 ? "end" : x(p.x) < left + 50 ? "start" : "middle";
      svg.text(x(p.x), y(p.y) - 13, chart.best_text, "label strong", anchor);
    }
    break;
  }
  svg.text((left + chart.width - right) / 2, chart.height - 7, chart.x_title, "axis-title", "middle");
  svg.vertical_text(11, (top + chart.height - bottom) / 2, chart.y_title, "axis-title");
  return std::move(svg).finish();
}

}  // namespace tailor
