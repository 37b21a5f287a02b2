import Calibration
import Testing
