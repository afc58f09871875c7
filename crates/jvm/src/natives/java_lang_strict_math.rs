//! `java.lang.StrictMath`: what the class itself does not compute, by a port of the same library that Java names as its standard (fdlibm).

use super::support::{double, natives};

natives! { "java/lang/StrictMath":
    "sin" "(D)D" => |_, arguments| Ok(double(libm::sin(arguments.double(0))));
    "cos" "(D)D" => |_, arguments| Ok(double(libm::cos(arguments.double(0))));
    "tan" "(D)D" => |_, arguments| Ok(double(libm::tan(arguments.double(0))));
    "asin" "(D)D" => |_, arguments| Ok(double(libm::asin(arguments.double(0))));
    "acos" "(D)D" => |_, arguments| Ok(double(libm::acos(arguments.double(0))));
    "atan" "(D)D" => |_, arguments| Ok(double(libm::atan(arguments.double(0))));
    "atan2" "(DD)D" => |_, arguments| Ok(double(libm::atan2(arguments.double(0), arguments.double(2))));
    "log" "(D)D" => |_, arguments| Ok(double(libm::log(arguments.double(0))));
    "log10" "(D)D" => |_, arguments| Ok(double(libm::log10(arguments.double(0))));
    "log1p" "(D)D" => |_, arguments| Ok(double(libm::log1p(arguments.double(0))));
    "expm1" "(D)D" => |_, arguments| Ok(double(libm::expm1(arguments.double(0))));
    "sqrt" "(D)D" => |_, arguments| Ok(double(arguments.double(0).sqrt()));
    "sinh" "(D)D" => |_, arguments| Ok(double(libm::sinh(arguments.double(0))));
    "cosh" "(D)D" => |_, arguments| Ok(double(libm::cosh(arguments.double(0))));
    "tanh" "(D)D" => |_, arguments| Ok(double(libm::tanh(arguments.double(0))));
    "IEEEremainder" "(DD)D" => |_, arguments| Ok(double(libm::remainder(arguments.double(0), arguments.double(2))));
}
